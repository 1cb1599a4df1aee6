//! What is inside the kernel half's object file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// The programs of an object that carries BTF.
///
/// # Errors
/// The file cannot be read, is no 64-bit ELF object, has no `.BTF` section, or
/// no program.
pub fn programs(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    programs_in(&bytes).with_context(|| path.display().to_string())
}

fn programs_in(bytes: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("is no 64-bit ELF object")?;
    let btf = file
        .section_by_name(".BTF")
        .map_or(0, |section| section.size());
    ensure!(
        btf > 0,
        "has no .BTF section, which the kernel and bpftool need: it was not linked by \
         `bpf-linker --btf` or was compiled without debug information"
    );
    // Subprograms live in .text; what the kernel attaches has a section of its own.
    let is_program = |symbol: &object::read::elf::ElfSymbol64<'_, '_>| {
        let section = symbol
            .section_index()
            .and_then(|index| file.section_by_index(index).ok());
        symbol.kind() == SymbolKind::Text
            && symbol.is_global()
            && section.is_some_and(|section| section.name() != Ok(".text"))
    };
    let mut names: Vec<String> = file
        .symbols()
        .filter(is_program)
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "has no program");
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(programs_in(b"not an object").is_err());
    }

    #[test]
    fn an_object_without_btf_is_refused_by_the_sections_name() {
        let own = fs::read("/proc/self/exe").unwrap();
        let error = programs_in(&own).unwrap_err().to_string();
        assert!(error.contains("no .BTF section"), "{error}");
    }
}
