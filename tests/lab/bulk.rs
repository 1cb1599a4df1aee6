//! Transfers of many bytes, compared by a digest so that nothing keeps them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::{panic, thread};

use anyhow::{Context as _, Result, ensure};

const BLOCK: usize = 64 * 1024;

/// The length of a stream and a checksum over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

#[derive(Default)]
struct Digester {
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl Digester {
    fn update(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.crc32.update(data);
    }

    fn finish(self) -> Digest {
        Digest {
            bytes: self.bytes,
            crc32: self.crc32.finalize(),
        }
    }
}

/// Sends `bytes` bytes, the same ones for the same `seed`.
///
/// Each block carries its number, so that a lost, doubled or moved block changes the digest.
pub fn send(mut to: impl Write, bytes: u64, seed: u8) -> Result<Digest> {
    let mut block: Vec<u8> = (0..=u8::MAX)
        .map(|byte| byte.wrapping_mul(167).wrapping_add(seed))
        .cycle()
        .take(BLOCK)
        .collect();
    let mut digester = Digester::default();
    let mut number: u64 = 0;
    while digester.bytes < bytes {
        block[..8].copy_from_slice(&number.to_be_bytes());
        let length = usize::try_from(bytes - digester.bytes)
            .unwrap_or(BLOCK)
            .min(BLOCK);
        to.write_all(&block[..length])
            .with_context(|| format!("sending byte {} of {bytes}", digester.bytes))?;
        digester.update(&block[..length]);
        number += 1;
    }
    Ok(digester.finish())
}

/// Receives until the end of the stream.
pub fn receive(mut from: impl Read) -> Result<Digest> {
    let mut block = vec![0; BLOCK];
    let mut digester = Digester::default();
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(digester.finish()),
            Ok(length) => digester.update(&block[..length]),
            Err(error) => {
                return Err(error).with_context(|| format!("receiving byte {}", digester.bytes));
            }
        }
    }
}

/// Sends a stream and its end one way and compares what arrives.
pub fn compare(from: TcpStream, to: TcpStream, bytes: u64, seed: u8) -> Result<()> {
    let receiver = thread::spawn(move || receive(to));
    let sent = send(&from, bytes, seed)?;
    from.shutdown(Shutdown::Write)?;
    let received = receiver
        .join()
        .unwrap_or_else(|cause| panic::resume_unwind(cause))?;
    ensure!(sent == received, "sent {sent:?}, received {received:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_stream_and_another_seed_another() -> Result<()> {
        let mut stream = Vec::new();
        let sent = send(&mut stream, 200_001, 1)?;
        assert_eq!(sent.bytes, 200_001);
        assert_eq!(receive(stream.as_slice())?, sent);
        assert_eq!(send(std::io::sink(), 200_001, 1)?, sent);
        assert_ne!(send(std::io::sink(), 200_001, 2)?, sent);
        Ok(())
    }

    #[test]
    fn swapped_blocks_change_the_digest() -> Result<()> {
        let mut stream = Vec::new();
        let sent = send(&mut stream, 2 * BLOCK as u64, 0)?;
        stream.rotate_left(BLOCK);
        assert_ne!(receive(stream.as_slice())?, sent);
        Ok(())
    }
}
