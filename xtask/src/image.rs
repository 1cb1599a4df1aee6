//! `image`: a static binary, and a container image of nothing else.
//!
//! The image is an OCI layout (image-spec 1.1), which is a few JSON files around a tar archive, and made here: the
//! binary's file capabilities get into it without root, nothing is fetched, and the same sources give the same digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::build;
use crate::process::{cmd, find_program, sh};
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
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    build::kernel_half(workspace)?;
    let binary = static_binary(workspace)?;
    let contents = sh().read_binary_file(&binary)?;
    let directory = options.output.clone();
    let directory = directory.unwrap_or_else(|| workspace.target.join("image"));
    let digest = Layout::create(&directory)?.image(&contents, &options.tag)?;
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
    let mebibytes = contents.len() as f64 / f64::from(1 << 20);
    println!("{}: {mebibytes:.1} MiB, static", workspace.shown(&binary));
    println!("{}: {digest}", workspace.shown(&directory));
    if options.layout_only {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(take_in(&directory, &options.tag))
}

/// The release build for musl where rustc has that target, else for glibc, linked statically.
fn static_binary(workspace: &Workspace) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let sysroot = workspace.command("rustc").arg("--print=sysroot").read()?;
    let targets = Path::new(&sysroot).join("lib/rustlib");
    let has_target = |target: &String| targets.join(target).is_dir();
    let musl = Some(format!("{arch}-unknown-linux-musl")).filter(has_target);
    let target = musl.unwrap_or_else(|| format!("{arch}-unknown-linux-gnu"));
    println!("image    the binary for {target}");
    workspace
        .cargo("build --release --package egress-userspace --target")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .run()?;
    let binary = workspace.target.join(&target).join("release/egress-router");
    let contents = sh().read_binary_file(&binary)?;
    let is_static = !asks_for_an_interpreter(&contents)?;
    ensure!(is_static, "{} is not static", binary.display());
    Ok(binary)
}

/// Whether the kernel has to start a dynamic linker for it (`PT_INTERP`).
fn asks_for_an_interpreter(elf: &[u8]) -> Result<bool> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(elf)?;
    let endian = header.endian()?;
    let mut segments = header.program_headers(endian, elf)?.iter();
    Ok(segments.any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
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
        sh().remove_path(directory.join("blobs"))?;
        sh().write_file(marker, r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory })
    }

    /// Writes the image of a single binary, and says by which digest it is known.
    fn image(&self, binary: &[u8], tag: &str) -> Result<String> {
        let archive = layer(binary)?;
        // For a builder with the Containerfile.
        sh().write_file(self.directory.join("layer.tar"), &archive)?;
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
        let config = self.json_blob("application/vnd.oci.image.config.v1+json", &config)?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": [layer],
        });
        let mut manifest = self.json_blob(media_type, &manifest)?;
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        sh().write_file(self.directory.join("index.json"), index.to_string())?;
        Ok(digest)
    }

    fn json_blob(&self, media_type: &str, contents: &Value) -> Result<Value> {
        self.blob(media_type, contents.to_string().as_bytes())
    }

    /// Writes a blob, and gives the descriptor by which others name it.
    fn blob(&self, media_type: &str, contents: &[u8]) -> Result<Value> {
        let digest = format!("{:x}", Sha256::digest(contents));
        sh().write_file(self.directory.join("blobs/sha256").join(&digest), contents)?;
        let (digest, size) = (format!("sha256:{digest}"), contents.len());
        Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    }
}

/// As Go names it, and with it OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The archive with the binary and the directory that its config is mounted at. No times, so that it is the same each
/// time.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    for directory in ["etc/", "etc/egress-router/"] {
        archive.append_data(&mut header, directory, std::io::empty())?;
    }
    let capabilities = file_capabilities();
    archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capabilities[..])])?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o555);
    header.set_size(binary.len() as u64);
    archive.append_data(&mut header, "egress-router", binary)?;
    Ok(archive.into_inner()?)
}

/// The extended attribute `security.capability` (`struct vfs_cap_data`, revision 2): permitted, but not effective. So
/// the binary starts where the runtime grants less, as for `check`, and the router takes up what it finds permitted.
fn file_capabilities() -> Vec<u8> {
    const REVISION_2: u32 = 0x0200_0000;
    let [low, high] = CAPABILITIES;
    // The magic number, then permitted and inheritable, of the first 32 and the rest.
    [REVISION_2, low, 0, high, 0].map(u32::to_le_bytes).concat()
}

/// Hands the layout to a builder of this machine.
fn take_in(directory: &Path, tag: &str) -> ExitCode {
    let mut tried = Vec::new();
    for builder in ["podman", "buildah", "docker"] {
        if find_program(builder).is_none() {
            tried.push(format!("{builder} is not installed"));
            continue;
        }
        match hand_to(builder, directory, tag) {
            Ok(()) => {
                println!("{builder} has the image {tag}");
                return ExitCode::SUCCESS;
            }
            Err(error) => tried.push(format!("{builder}: {error:#}")),
        }
    }
    println!(
        "No builder has taken the image in ({}).\n\
         The layout is complete: `skopeo copy oci:{}:{tag} docker://...` or `ctr image import` take it as well.",
        tried.join("; "),
        directory.display()
    );
    ExitCode::from(NO_BUILDER)
}

fn hand_to(builder: &str, directory: &Path, tag: &str) -> Result<()> {
    if builder == "docker" {
        // It reads no layouts.
        let build = cmd!(
            sh(),
            "docker build --tag {tag} --file deploy/Containerfile {directory}"
        );
        return Ok(build.quiet().run()?);
    }
    let layout = format!("oci:{}:{tag}", directory.display());
    let output = cmd!(sh(), "{builder} pull {layout}").read()?;
    // The image has only the directory's name by then.
    let id = output.lines().last().context("it named no image")?.trim();
    Ok(cmd!(sh(), "{builder} tag {id} {tag}").quiet().run()?)
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
        let written: Vec<u8> = [
            [0, 0, 0, 2],
            [0, 0x10, 0, 1],
            [0; 4],
            [0xc0, 0, 0, 0],
            [0; 4],
        ]
        .concat();
        assert_eq!(capabilities, [written]);
        Ok(())
    }

    #[test]
    fn each_blob_is_named_by_its_digest() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let directory = directory.path();
        let layout = Layout::create(directory)?;
        let first = layout.image(b"a program", "name:tag")?;
        // Again, into what is there.
        assert_eq!(
            Layout::create(directory)?.image(b"a program", "name:tag")?,
            first
        );
        let blobs: Vec<_> =
            fs::read_dir(directory.join("blobs/sha256"))?.collect::<Result<_, _>>()?;
        assert_eq!(blobs.len(), 3);
        for blob in blobs {
            let digest = format!("{:x}", Sha256::digest(fs::read(blob.path())?));
            assert_eq!(blob.file_name().to_string_lossy(), digest);
        }
        Ok(())
    }
}
