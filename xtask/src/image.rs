//! `image`: a static binary, and a container image of nothing else.
//!
//! The image is an OCI layout (image-spec 1.1), which is a few JSON files around a tar archive, and made here: the binary's
//! file capabilities get into it without root, nothing is fetched, and the same sources give the same digest.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::build;
use crate::process::{CommandExt as _, find_program};
use crate::workspace::Workspace;

pub const HELP: &str = "\
Examples:
  cargo xtask image
  cargo xtask image --output /tmp/egress-router --layout-only
  skopeo copy oci:/tmp/egress-router:egress-router docker://registry.example/egress-router:0.1.0";

/// What it exits with when there is a layout, and no builder to take it in.
const NO_BUILDER: u8 = 3;
/// Who the router is in the container.
const USER: u64 = 65532;

/// `CAP_NET_ADMIN`, `CAP_SYS_RESOURCE` (before Linux 5.11), `CAP_PERFMON` and `CAP_BPF` (`linux/capability.h`), in two
/// words.
const CAPABILITIES: [u32; 2] = [1 << 12 | 1 << 24, 1 << (38 - 32) | 1 << (39 - 32)];

#[derive(Args)]
pub struct Options {
    /// Where the OCI layout goes; a directory that is new, empty, or from this command
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// What the image is called
    #[arg(long, default_value = "egress-router")]
    tag: String,
    /// Leave the layout, and look for no builder
    #[arg(long)]
    layout_only: bool,
}

/// Builds the binary and the image.
///
/// # Errors
/// A build fails, the binary is not static, or the output cannot be written.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    build::kernel_half(workspace)?;
    let binary = static_binary(workspace)?;
    let contents = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    let directory = options.output.clone();
    let directory = directory.unwrap_or_else(|| workspace.target().join("image"));
    let digest = Layout::create(&directory)?.image(&contents, &options.tag)?;
    println!(
        "{}: {}, static",
        workspace.shown(&binary).display(),
        mebibytes(contents.len())
    );
    println!("{}: {digest}", workspace.shown(&directory).display());
    if options.layout_only {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(take_in(&directory, &options.tag))
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The release build for musl where rustc has that target, else for glibc, linked statically.
fn static_binary(workspace: &Workspace) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let musl = format!("{arch}-unknown-linux-musl");
    let sysroot = workspace
        .command("rustc")
        .args(["--print", "sysroot"])
        .read()?;
    let has_musl = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(&musl)
        .is_dir();
    let target = if has_musl {
        musl
    } else {
        format!("{arch}-unknown-linux-gnu")
    };
    println!("image    the binary for {target}");
    workspace
        .cargo()
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--release", "--package", "egress-userspace"])
        .args(["--target", &target])
        .run()?;
    let binary = workspace
        .target()
        .join(&target)
        .join("release/egress-router");
    let contents = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    ensure!(
        !asks_for_an_interpreter(&contents)?,
        "{} is not static",
        binary.display()
    );
    Ok(binary)
}

/// Whether the kernel has to start a dynamic linker for it (`PT_INTERP`).
fn asks_for_an_interpreter(elf: &[u8]) -> Result<bool> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(elf)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, elf)?;
    Ok(segments
        .iter()
        .any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
}

/// An OCI image layout that is being written.
struct Layout<'d> {
    directory: &'d Path,
}

impl<'d> Layout<'d> {
    fn create(directory: &'d Path) -> Result<Self> {
        let marker = directory.join("oci-layout");
        let is_empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        ensure!(
            is_empty || marker.is_file(),
            "{} has something else in it",
            directory.display()
        );
        let blobs = directory.join("blobs");
        if blobs.is_dir() {
            fs::remove_dir_all(&blobs).with_context(|| format!("removing {}", blobs.display()))?;
        }
        fs::create_dir_all(blobs.join("sha256"))
            .with_context(|| format!("making {}", blobs.display()))?;
        fs::write(marker, json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        Ok(Self { directory })
    }

    /// Writes the image of a single binary, and says by which digest it is known.
    fn image(&self, binary: &[u8], tag: &str) -> Result<String> {
        let archive = layer(binary)?;
        // For a builder with the Containerfile.
        fs::write(self.directory.join("layer.tar"), &archive)?;
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &archive)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Entrypoint": ["/egress-router"],
                "Cmd": ["run", "--config", "/etc/egress-router/router.yaml", "--metrics-address", "[::]:9469"],
                "Labels": {
                    "org.opencontainers.image.title": "egress-router",
                    "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                    "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        )?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer],
        });
        let mut manifest = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )?;
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(self.directory.join("index.json"), index.to_string())?;
        Ok(digest)
    }

    /// Writes a blob, and gives the descriptor by which others name it.
    fn blob(&self, media_type: &str, contents: &[u8]) -> Result<Value> {
        let digest = hex(&Sha256::digest(contents));
        let path = self.directory.join("blobs/sha256").join(&digest);
        fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
        Ok(json!({
            "mediaType": media_type,
            "digest": format!("sha256:{digest}"),
            "size": contents.len(),
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As Go names it, and with it OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The archive with the binary and the directory that its config is mounted at. No times, so that it is the same each time.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for directory in ["etc/", "etc/egress-router/"] {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        archive.append_data(&mut header, directory, std::io::empty())?;
    }
    let capabilities = file_capabilities();
    archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capabilities[..])])?;
    let mut header = header(tar::EntryType::Regular, binary.len() as u64, 0o555);
    archive.append_data(&mut header, "egress-router", binary)?;
    Ok(archive.into_inner()?)
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The extended attribute `security.capability` (`struct vfs_cap_data`, revision 2): permitted, but not effective. So the
/// binary starts where the runtime grants less, as for `check`, and the router takes up what it finds permitted.
fn file_capabilities() -> [u8; 20] {
    const REVISION_2: u32 = 0x0200_0000;
    let mut data = [0; 20];
    let [low, high] = CAPABILITIES;
    // The magic number, then permitted and inheritable, of the first 32 and the rest.
    for (index, word) in [REVISION_2, low, 0, high, 0].into_iter().enumerate() {
        data[4 * index..][..4].copy_from_slice(&word.to_le_bytes());
    }
    data
}

/// Hands the layout to a builder of this machine.
fn take_in(directory: &Path, tag: &str) -> ExitCode {
    let layout = format!("oci:{}:{tag}", directory.display());
    let mut tried = Vec::new();
    for (builder, take) in [
        ("podman", pull as fn(&str, &Path, &str) -> Result<()>),
        ("buildah", pull),
        ("docker", build_by_containerfile),
    ] {
        if find_program(builder).is_none() {
            tried.push(format!("{builder} is not installed"));
            continue;
        }
        match take(builder, directory, tag) {
            Ok(()) => {
                println!("{builder} has the image {tag}");
                return ExitCode::SUCCESS;
            }
            Err(error) => tried.push(format!("{builder}: {error:#}")),
        }
    }
    println!("No builder has taken the image in ({}).", tried.join("; "));
    println!(
        "The layout is complete: `skopeo copy {layout} docker://...` or `ctr image import` take it as well."
    );
    ExitCode::from(NO_BUILDER)
}

/// Copies the layout, and names the image, which has only the directory's name by then.
fn pull(builder: &str, directory: &Path, tag: &str) -> Result<()> {
    let layout = format!("oci:{}:{tag}", directory.display());
    let output = Command::new(builder).args(["pull", &layout]).read()?;
    let id = output.lines().last().context("it named no image")?;
    Command::new(builder).args(["tag", id.trim(), tag]).run()
}

/// Docker reads no layouts.
fn build_by_containerfile(builder: &str, directory: &Path, tag: &str) -> Result<()> {
    Command::new(builder)
        .args(["build", "--tag", tag, "--file", "deploy/Containerfile"])
        .arg(directory)
        .run()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_layer_has_the_binary_with_its_capabilities_and_is_the_same_each_time() -> Result<()> {
        let archive = layer(b"a program")?;
        assert_eq!(archive, layer(b"a program")?);
        let mut found = Vec::new();
        let mut capabilities = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries()? {
            let mut entry = entry?;
            if let Some(extensions) = entry.pax_extensions()? {
                for extension in extensions {
                    capabilities.push(extension?.value_bytes().to_vec());
                }
            }
            let mut contents = String::new();
            entry.read_to_string(&mut contents)?;
            let path = entry.path()?.display().to_string();
            found.push((path, entry.header().mode()?, contents));
        }
        let entry = |path: &str, mode, contents: &str| (path.to_owned(), mode, contents.to_owned());
        let expected = [
            entry("etc/", 0o755, ""),
            entry("etc/egress-router/", 0o755, ""),
            entry("egress-router", 0o555, "a program"),
        ];
        assert_eq!(found, expected);
        // What `setcap cap_net_admin,cap_sys_resource,cap_perfmon,cap_bpf+p` writes.
        let written = "00000002 00100001 00000000 c0000000 00000000".replace(' ', "");
        assert_eq!(
            capabilities.iter().map(|it| hex(it)).collect::<Vec<_>>(),
            [written]
        );
        Ok(())
    }

    #[test]
    fn each_blob_is_named_by_its_digest() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("egress-image-{}", std::process::id()));
        let layout = Layout::create(&directory)?;
        let first = layout.image(b"a program", "name:tag")?;
        // Again, into what is there.
        assert_eq!(
            Layout::create(&directory)?.image(b"a program", "name:tag")?,
            first
        );
        let blobs: Vec<_> =
            fs::read_dir(directory.join("blobs/sha256"))?.collect::<Result<_, _>>()?;
        assert_eq!(blobs.len(), 3);
        for blob in blobs {
            let digest = hex(&Sha256::digest(fs::read(blob.path())?));
            assert_eq!(blob.file_name().to_string_lossy(), digest);
        }
        fs::remove_dir_all(directory)?;
        Ok(())
    }
}
