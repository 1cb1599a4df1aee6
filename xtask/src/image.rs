//! `image`: a static binary, and a container image that contains only this binary.
//!
//! The image is an OCI layout (image-spec 1.1): a tar archive and a few JSON files, which are written here. So the
//! binary gets its file capabilities without root, nothing is downloaded, and equal sources have equal digests.

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

/// The exit code if the layout is complete, but no builder imported it.
const NO_BUILDER: u8 = 3;
/// The router's user and group in the container.
const USER: u64 = 65532;

/// `CAP_NET_ADMIN`, `CAP_SYS_RESOURCE` (before Linux 5.11), `CAP_PERFMON` and `CAP_BPF` (`linux/capability.h`), in two
/// words.
const CAPABILITIES: [u32; 2] = [1 << 12 | 1 << 24, 1 << (38 - 32) | 1 << (39 - 32)];

#[derive(Args)]
pub struct Options {
    /// The directory of the OCI layout: new, empty, or written by this command
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The name of the image
    #[arg(long, default_value = "egress-router")]
    tag: String,
    /// Only write the layout, and call no builder
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
    Ok(import(&directory, &options.tag))
}

/// Builds the static release binary, for musl if rustc has that target, else for glibc.
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
    let is_static = !has_interpreter(&contents)?;
    ensure!(is_static, "{} is not static", binary.display());
    Ok(binary)
}

/// Returns `true` if the program needs a dynamic linker (`PT_INTERP`).
fn has_interpreter(elf: &[u8]) -> Result<bool> {
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
            "{} is not empty, and not an OCI layout",
            directory.display()
        );
        sh().remove_path(directory.join("blobs"))?;
        sh().write_file(marker, r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory })
    }

    /// Writes the image of this binary and returns its digest.
    fn image(&self, binary: &[u8], tag: &str) -> Result<String> {
        let archive = layer(binary)?;
        // For docker, which builds from deploy/Containerfile.
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

    /// Writes a blob and returns its descriptor.
    fn blob(&self, media_type: &str, contents: &[u8]) -> Result<Value> {
        let digest = format!("{:x}", Sha256::digest(contents));
        sh().write_file(self.directory.join("blobs/sha256").join(&digest), contents)?;
        let (digest, size) = (format!("sha256:{digest}"), contents.len());
        Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    }
}

/// The architecture by its OCI name, which is Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The archive with the binary and the directory that its config is mounted at. All times are 0, so that it is
/// reproducible.
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
/// the binary also starts if the runtime grants fewer, as for `check`, and the router raises what is permitted.
fn file_capabilities() -> Vec<u8> {
    const REVISION_2: u32 = 0x0200_0000;
    let [low, high] = CAPABILITIES;
    // The magic number, then permitted and inheritable, of the first 32 and the rest.
    [REVISION_2, low, 0, high, 0].map(u32::to_le_bytes).concat()
}

/// Imports the layout into the first builder that works.
fn import(directory: &Path, tag: &str) -> ExitCode {
    let mut tried = Vec::new();
    for builder in ["podman", "buildah", "docker"] {
        if find_program(builder).is_none() {
            tried.push(format!("{builder} is not installed"));
            continue;
        }
        match import_into(builder, directory, tag) {
            Ok(()) => {
                println!("{builder} imported the image {tag}");
                return ExitCode::SUCCESS;
            }
            Err(error) => tried.push(format!("{builder}: {error:#}")),
        }
    }
    println!(
        "No builder imported the image ({}).\n\
         The layout is complete: `skopeo copy oci:{}:{tag} docker://...` or `ctr image import` can import it.",
        tried.join("; "),
        directory.display()
    );
    ExitCode::from(NO_BUILDER)
}

fn import_into(builder: &str, directory: &Path, tag: &str) -> Result<()> {
    if builder == "docker" {
        // docker reads no OCI layouts.
        let build = cmd!(
            sh(),
            "docker build --tag {tag} --file deploy/Containerfile {directory}"
        );
        return Ok(build.quiet().run()?);
    }
    let layout = format!("oci:{}:{tag}", directory.display());
    let output = cmd!(sh(), "{builder} pull {layout}").read()?;
    // `pull` names the image after the directory.
    let id = output
        .lines()
        .last()
        .context("it printed no image id")?
        .trim();
    Ok(cmd!(sh(), "{builder} tag {id} {tag}").quiet().run()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_layer_is_reproducible_and_has_the_binary_with_its_capabilities() -> Result<()> {
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
        // A second time, over the first image.
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
