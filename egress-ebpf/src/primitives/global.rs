//! Global functions, which hold the slow path (`docs/decisions/0009-global-functions.md`).
//!
//! The verifier checks a global function once, whatever the state of its callers. Code in line is checked again for
//! each path that leads to it. A global function takes the context and numbers only (pointers to anything else need
//! Linux 5.13), and returns one number. So it reads the headers again, and [`global_fn`] encodes what goes in and comes
//! out.

use egress_common::{Change, Outcome, Side, extension::Place, tcp};

/// Makes global functions of a step's function, and a typed function that calls them.
///
/// With `<F>` there is one global function for each family, whose names follow. Without, there is one for both. The
/// names are those that `bpftool prog dump` shows.
///
/// Arguments and result are a [`Word`] each, or a `Result` of one. The packet comes first; a function that does not
/// need it does not take it.
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

/// Makes an enum a [`Word`] by the numbers of its variants. What is none of them stands for the last one.
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

/// What fits into 32 bits: an argument of a global function, or the value that it returns.
///
/// The verifier does not know which numbers arrive, so each one stands for something.
pub trait Word {
    fn to_word(self) -> u32;
    fn from_word(word: u32) -> Self;
}

/// What a global function returns, as a number.
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

/// The value in the lower half; in the upper one 0, or an outcome's number and one.
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
