//! Global functions, which contain the slow path (`docs/decisions/0009-global-functions.md`).
//!
//! The verifier checks a global function once, independently of its callers' states. It checks inline code again for
//! each path that leads to it. A global function takes only the context and numbers (pointers to anything else need
//! Linux 5.13), and returns one number. It must therefore read the headers again. [`global_fn`] encodes its arguments
//! and result.

use egress_common::{Change, Outcome, Side, extension::Place, tcp};

/// Defines global functions around a step's function, and a typed function that calls them.
///
/// With `<F>` there is one global function per family, whose names follow. Without it, there is one for both. The names
/// are those that `bpftool prog dump` shows.
///
/// Each argument is a [`Word`]; the result is a [`Word`] or a `Result` of one. The packet comes first. A function that
/// does not need the packet does not take it.
///
/// ```ignore
/// global_fn! {
///     /// Translates an ICMP error that arrived on `side`: [`translate_error`].
///     pub fn translate<F>(packet: &Packet, side: Side) -> Result<(), Outcome> = translate_error::<F>;
///     V4 => translate_icmp_error_v4, V6 => translate_icmp_error_v6
/// }
/// ```
macro_rules! global_fn {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<F>($($arguments:tt)*) -> $result:ty = $body:ident::<F>;
        V4 => $v4:ident, V6 => $v6:ident
    ) => {
        $(#[$attribute])*
        #[inline(always)]
        $visibility fn $name<F: ::egress_common::Family>($($arguments)*) -> $result {
            if F::IS_V6 {
                global_fn!(@call $v6($($arguments)*))
            } else {
                global_fn!(@call $v4($($arguments)*))
            }
        }
        global_fn!(@define $v4($($arguments)*) -> $result = $body::<::egress_common::V4>);
        global_fn!(@define $v6($($arguments)*) -> $result = $body::<::egress_common::V6>);
    };
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($arguments:tt)*) -> $result:ty = $body:ident;
        $symbol:ident
    ) => {
        $(#[$attribute])*
        #[inline(always)]
        $visibility fn $name($($arguments)*) -> $result {
            global_fn!(@call $symbol($($arguments)*))
        }
        global_fn!(@define $symbol($($arguments)*) -> $result = $body);
    };
    (@call $symbol:ident($packet:ident: &Packet $(, $argument:ident: $type:ty)*)) => {
        $crate::primitives::global::Returned::decode($symbol(
            $packet.skb() $(, $crate::primitives::global::Word::to_word($argument))*
        ))
    };
    (@call $symbol:ident($($argument:ident: $type:ty),*)) => {
        $crate::primitives::global::Returned::decode($symbol(
            $($crate::primitives::global::Word::to_word($argument)),*
        ))
    };
    (@define $symbol:ident($packet:ident: &Packet $(, $argument:ident: $type:ty)*) -> $result:ty = $body:expr) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $symbol(skb: *mut ::aya_ebpf::bindings::__sk_buff $(, $argument: u32)*) -> u64 {
            let $packet = Packet::new(::aya_ebpf::programs::TcContext::new(skb));
            let result: $result = $body(&$packet $(, $crate::primitives::global::Word::from_word($argument))*);
            $crate::primitives::global::Returned::encode(result)
        }
    };
    (@define $symbol:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $symbol($($argument: u32),*) -> u64 {
            let result: $result = $body($($crate::primitives::global::Word::from_word($argument)),*);
            $crate::primitives::global::Returned::encode(result)
        }
    };
}

/// Implements [`Word`] for an enum by the numbers of its variants. Any other number stands for the last variant.
macro_rules! word_enum {
    ($type:ty: $($variant:ident),+ or $last:ident) => {
        impl $crate::primitives::global::Word for $type {
            #[inline(always)]
            fn to_word(self) -> u32 {
                self as u32
            }

            #[inline(always)]
            fn from_word(word: u32) -> Self {
                match word {
                    $(word if word == Self::$variant as u32 => Self::$variant,)+
                    _ => Self::$last,
                }
            }
        }
    };
}

/// A value of at most 32 bits, as an argument or result of a global function.
///
/// The verifier assumes that any number may arrive, so every number must stand for some value.
pub trait Word {
    fn to_word(self) -> u32;
    fn from_word(word: u32) -> Self;
}

/// The result of a global function, as a number.
pub trait Returned {
    fn encode(self) -> u64;
    fn decode(number: u64) -> Self;
}

impl<T: Word> Returned for T {
    #[inline(always)]
    fn encode(self) -> u64 {
        u64::from(self.to_word())
    }

    #[inline(always)]
    fn decode(number: u64) -> Self {
        Self::from_word(number as u32)
    }
}

/// The lower half is the value. The upper half is 0 for `Ok`, or the outcome's number plus one.
impl<T: Word> Returned for Result<T, Outcome> {
    #[inline(always)]
    fn encode(self) -> u64 {
        match self {
            Ok(value) => u64::from(value.to_word()),
            Err(outcome) => (u64::from(outcome.to_word()) + 1) << 32,
        }
    }

    #[inline(always)]
    fn decode(number: u64) -> Self {
        match (number >> 32) as u32 {
            0 => Ok(T::from_word(number as u32)),
            outcome => Err(Outcome::from_word(outcome - 1)),
        }
    }
}

impl Word for () {
    #[inline(always)]
    fn to_word(self) -> u32 {
        0
    }

    #[inline(always)]
    fn from_word(_: u32) -> Self {}
}

impl Word for bool {
    #[inline(always)]
    fn to_word(self) -> u32 {
        u32::from(self)
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        word != 0
    }
}

impl Word for u16 {
    #[inline(always)]
    fn to_word(self) -> u32 {
        u32::from(self)
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        word as Self
    }
}

impl Word for u32 {
    #[inline(always)]
    fn to_word(self) -> u32 {
        self
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        word
    }
}

impl Word for Outcome {
    #[inline(always)]
    fn to_word(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        Self::from_number(word).unwrap_or(Self::Malformed)
    }
}

word_enum!(Side: Cluster or Egress);

impl Word for Change {
    #[inline(always)]
    fn to_word(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        Self::from_number(word).unwrap_or(Self::Idle)
    }
}

impl Word for tcp::Flags {
    #[inline(always)]
    fn to_word(self) -> u32 {
        u32::from(self.0)
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        Self(word as u8)
    }
}

impl Word for Place {
    #[inline(always)]
    fn to_word(self) -> u32 {
        self.to_bits()
    }

    #[inline(always)]
    fn from_word(word: u32) -> Self {
        Self::from_bits(word)
    }
}
