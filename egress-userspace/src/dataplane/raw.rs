//! Calls of bpf(2) that aya lacks: access to maps of unknown layout, and `BPF_PROG_BIND_MAP`.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::maps::{MapData, MapError, MapType};

const MAP_LOOKUP_ELEM: nix::libc::c_int = 1;
const MAP_UPDATE_ELEM: nix::libc::c_int = 2;
const MAP_GET_NEXT_KEY: nix::libc::c_int = 4;
const PROG_BIND_MAP: nix::libc::c_int = 35;

/// `bpf_attr` of the calls on map elements.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `bpf_attr` of `BPF_PROG_BIND_MAP`.
#[repr(C)]
struct Bind {
    program: u32,
    map: u32,
    flags: u32,
}

/// Reads the value of an array with one element, whatever the value's size is.
///
/// # Errors
///
/// If the map is not such an array, or the kernel refuses.
pub(super) fn only_value(map: &MapData) -> Result<Vec<u8>, MapError> {
    let info = map.info()?;
    let is_array = info.map_type().is_ok_and(|kind| kind == MapType::Array);
    if !is_array || info.max_entries() != 1 {
        return Err(io::Error::other("not an array with one element").into());
    }
    let key = 0_u32.to_ne_bytes();
    let mut value = vec![0; info.value_size() as usize];
    // SAFETY: an array's key has four bytes, and `value` has the value size that the kernel reports.
    unsafe { element(MAP_LOOKUP_ELEM, map.fd().as_fd(), Some(&key), &mut value)? };
    Ok(value)
}

/// Writes the value of an array with one element.
///
/// # Errors
///
/// If `value` does not have the map's value size, or the kernel refuses.
pub(super) fn set_only_value(map: &MapData, value: &mut [u8]) -> Result<(), MapError> {
    if map.info()?.value_size() as usize != value.len() {
        return Err(io::Error::other("not the size of the map's values").into());
    }
    let key = 0_u32.to_ne_bytes();
    // SAFETY: an array's key has four bytes, and `value` has the value size that the kernel reports.
    unsafe { element(MAP_UPDATE_ELEM, map.fd().as_fd(), Some(&key), value)? };
    Ok(())
}

/// Counts the keys of a hash. The map's size bounds the result, as the kernel restarts the walk if the current key was
/// deleted in the meantime.
///
/// # Errors
///
/// If the kernel refuses.
pub(super) fn count_keys(map: &MapData) -> Result<u32, MapError> {
    let info = map.info()?;
    let (mut key, mut next) = (None::<Vec<u8>>, vec![0; info.key_size() as usize]);
    for count in 0..info.max_entries() {
        // SAFETY: both keys have the key size that the kernel reports.
        match unsafe {
            element(
                MAP_GET_NEXT_KEY,
                map.fd().as_fd(),
                key.as_deref(),
                &mut next,
            )
        } {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(count),
            result => result?,
        }
        key.get_or_insert_default().clone_from(&next);
    }
    Ok(info.max_entries())
}

/// Binds a map to a program that does not use it: the program's list of maps contains it, and keeps it alive.
///
/// # Errors
///
/// If the kernel refuses. The call requires Linux 5.10.
pub(super) fn bind(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = Bind {
        program: program.as_raw_fd().cast_unsigned(),
        map: map.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(PROG_BIND_MAP, &attributes) }
}

/// # Safety
///
/// `key` must have the map's key size. `value` must have its value size, or the key size for `MAP_GET_NEXT_KEY`.
unsafe fn element(
    command: nix::libc::c_int,
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    value: &mut [u8],
) -> io::Result<()> {
    let attributes = Element {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr().expose_provenance() as u64),
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the caller guarantees the sizes.
    unsafe { bpf(command, &attributes) }
}

/// # Safety
///
/// `attributes` must be the `bpf_attr` of the command, and its pointers must be valid for it.
unsafe fn bpf<T>(command: nix::libc::c_int, attributes: &T) -> io::Result<()> {
    // SAFETY: the kernel reads no more than the size of the attributes.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
