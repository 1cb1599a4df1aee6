//! Breaks one kernel's run on purpose, to check that and how it is reported.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _};
use serde::{Deserialize, Serialize};

use crate::process::sh;

/// What to break.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Sabotage {
    /// The guest's kernel panics.
    Panic,
    /// The guest hangs.
    Hang,
    /// The guest ends before its tests.
    Exit,
    /// The first program reads an uninitialized register.
    Verifier,
    /// The first program drops the packets that it should pass.
    Verdict,
}

/// The program of the kernel half to break.
const PROGRAM: &str = "eth0_ingress";
/// The length of an instruction in bytes.
const INSTRUCTION: usize = 8;

impl Sabotage {
    /// Returns `true` if it changes a test binary; the others are done by the guest.
    pub fn changes_binary(self) -> bool {
        matches!(self, Self::Verifier | Self::Verdict)
    }

    /// Breaks the kernel half that a test binary embeds. Fails if it embeds another one than `object`.
    pub fn apply(self, binary: &Path, object: &Path) -> Result<Vec<u8>> {
        let mut bytes = sh().read_binary_file(binary)?;
        let object = sh().read_binary_file(object)?;
        let start = position(&bytes, &object).context("the test binary embeds another object")?;
        let code = code_of(&object, PROGRAM)?;
        let code = &mut bytes[start + code.start..start + code.end];
        match self {
            // r0 = r9
            Self::Verifier => {
                code[..INSTRUCTION].copy_from_slice(&[0xbf, 0x90, 0, 0, 0, 0, 0, 0]);
            }
            Self::Verdict => {
                // w0 = -1 becomes w0 = 2: TC_ACT_SHOT instead of TC_ACT_UNSPEC.
                let is_pass = |instruction: &&mut [u8]| {
                    matches!(instruction, [0xb4 | 0xb7, _, 0, 0, 0xff, 0xff, 0xff, 0xff])
                };
                let mut changed = 0;
                for instruction in code.chunks_exact_mut(INSTRUCTION).filter(is_pass) {
                    instruction[4..].copy_from_slice(&2_i32.to_le_bytes());
                    changed += 1;
                }
                ensure!(changed > 0, "{PROGRAM} passes no packet");
            }
            Self::Panic | Self::Hang | Self::Exit => {}
        }
        Ok(bytes)
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Where the code of a program is in an object.
fn code_of(object: &[u8], program: &str) -> Result<std::ops::Range<usize>> {
    let file = ElfFile64::<Endianness>::parse(object)?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(program))
        .with_context(|| format!("the object has no program {program}"))?;
    let section = symbol
        .section_index()
        .context("the program has no section")?;
    let (offset, _) = file
        .section_by_index(section)?
        .file_range()
        .context("the program's section is empty")?;
    let start = usize::try_from(offset + symbol.address())?;
    Ok(start..start + usize::try_from(symbol.size())?)
}
