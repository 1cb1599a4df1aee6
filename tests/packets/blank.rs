//! Empties a map of any type with `bpf(2)`: aya's maps know the types of their keys and values.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, MapInfo, MapType, RingBuf};
use nix::libc;

// `enum bpf_cmd` of `linux/bpf.h`.
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const MAP_LOOKUP_AND_DELETE_ELEM: i32 = 21;

/// The part of `union bpf_attr` that these commands read.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Deletes all entries of a map. The elements of an array become zero, and a ring buffer is read to its end. A map that
/// user space may not write stays as it is.
pub fn map(info: &MapInfo) -> Result<()> {
    if info.map_type()? == MapType::RingBuf {
        let map = Map::from_map_data(MapData::from_id(info.id())?)?;
        let mut ring = RingBuf::try_from(map)?;
        while ring.next().is_some() {}
        return Ok(());
    }
    let fd = info.fd()?;
    let fd = fd.as_fd();
    let mut key = vec![0; info.key_size() as usize];
    let mut value = vec![0; value_len(info)?];
    let result = match info.map_type()? {
        MapType::Hash | MapType::LruHash => loop {
            // Without a start key, the kernel returns the first one.
            match command(MAP_GET_NEXT_KEY, fd, &mut [], &mut key) {
                Ok(()) => command(MAP_DELETE_ELEM, fd, &mut key, &mut [])?,
                Err(error) => break Err(error),
            }
        },
        MapType::Array | MapType::PerCpuArray => (0..info.max_entries()).try_for_each(|index| {
            key.copy_from_slice(&index.to_ne_bytes());
            command(MAP_UPDATE_ELEM, fd, &mut key, &mut value)
        }),
        MapType::Queue => loop {
            if let Err(error) = command(MAP_LOOKUP_AND_DELETE_ELEM, fd, &mut [], &mut value) {
                break Err(error);
            }
        },
        _ => Ok(()),
    };
    match result.as_ref().map_err(io::Error::raw_os_error) {
        // The map is empty or frozen.
        Ok(()) | Err(Some(libc::ENOENT | libc::EPERM)) => Ok(()),
        Err(_) => result.with_context(|| format!("map {:?}", info.name_as_str())),
    }
}

/// The length of a value as it passes between the kernel and this process.
fn value_len(info: &MapInfo) -> Result<usize> {
    let len = info.value_size() as usize;
    Ok(match info.map_type()? {
        MapType::PerCpuArray => {
            let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
                anyhow::Error::new(error).context(format!("reading {path}"))
            })?;
            len.next_multiple_of(8) * cpus
        }
        _ => len,
    })
}

/// Runs one command on one element. An empty buffer means none.
fn command(command: i32, map: BorrowedFd<'_>, key: &mut [u8], value: &mut [u8]) -> io::Result<()> {
    let address = |buffer: &mut [u8]| {
        if buffer.is_empty() {
            0
        } else {
            buffer.as_mut_ptr() as u64
        }
    };
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: address(key),
        value: address(value),
        flags: 0,
    };
    // SAFETY: the kernel reads `element`, whose size is given, and reads or writes the key and the value, whose lengths
    // are those that the map's description states; all three are borrowed for the whole call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const element,
            size_of::<Element>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
