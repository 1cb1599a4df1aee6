//! The binary as another user, with some privileges or none.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use caps::Capability;
use egress_common::InstanceInfo;
use egress_tests::addresses::{HTTP, client};
use egress_tests::requirements::skipped;
use egress_tests::router::{self, example_spec};
use egress_tests::{BpfFs, Lab, eventually, function_name, skip_unless_lab_works};
use egress_userspace::dataplane::Pins;
use egress_userspace::net::kernel;
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Running, attachments, exchange_datagrams, has_tcx};
use crate::shell::{self, Finished, Started};

const PRIVILEGES: i32 = 5;
const NOT_RUNNING: i32 = 8;
/// `nobody`, or whichever user has this ID. Not root.
const NOBODY: u32 = 65534;

/// The binary and the example spec where every user can read them. A build directory may not be readable.
struct Published(TempDir);

impl Published {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        // install(1) writes the files, not this process: a child that another thread forks meanwhile would inherit a
        // descriptor open for writing, and Linux does not run such a file (ETXTBSY).
        for (mode, file, name) in [
            ("0755", router::binary()?, "egress-router"),
            ("0644", example_spec(), "router.yaml"),
        ] {
            let status = Command::new("install")
                .args(["-m", mode])
                .args([&file, &directory.path().join(name)])
                .status()
                .context("starting install(1)")?;
            ensure!(
                status.success(),
                "install(1) of {}: {status}",
                file.display()
            );
        }
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn binary(&self) -> PathBuf {
        self.path("egress-router")
    }

    fn spec(&self) -> String {
        self.path("router.yaml").display().to_string()
    }

    fn as_nobody(&self, arguments: &[&str], input: Stdio) -> Result<Finished> {
        let mut command = Command::new(self.binary());
        command.args(arguments).env("LC_ALL", "C").stdin(input);
        shell::finish(command.uid(NOBODY).gid(NOBODY))
    }

    /// Runs the binary in the router pod, on a thread there: an unprivileged child cannot change its namespace.
    fn as_nobody_in(&self, lab: &Lab, arguments: &[&str]) -> Result<Finished> {
        lab.router()
            .run(|| self.as_nobody(arguments, Stdio::null()))
    }

    /// A `run` command in the router pod as nobody, with only these capabilities in setpriv(1)'s notation.
    fn run_with(&self, lab: &Lab, capabilities: &str) -> Command {
        let nobody = NOBODY.to_string();
        let mut command = lab.router().command("setpriv");
        command
            .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
            .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
            // The kernel clears this setting when a process changes its user.
            .args(["--pdeathsig", "SIGKILL"])
            .arg(self.binary())
            .args(["run", "--no-pin", "--config", &self.spec()]);
        command
    }
}

/// The capabilities that `run` needs, in setpriv(1)'s notation.
fn needed() -> Result<String> {
    // Without CAP_PERFMON the verifier rejects pointer arithmetic that the programs need.
    let mut capabilities = "+bpf,+perfmon,+net_admin".to_owned();
    // Before Linux 5.11, the memory of maps counts as locked memory, of which few users may have much. The coarse clock
    // came with the same version.
    if !kernel::features()?.coarse_clock {
        capabilities += ",+sys_resource";
    }
    Ok(capabilities)
}

#[test]
fn run_names_the_capabilities_that_it_misses() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    published
        .as_nobody_in(&lab, &["run", "--config", &published.spec()])?
        .failure(PRIVILEGES, &["missing CAP_BPF", "CAP_NET_ADMIN", "root"])?;
    assert!(attachments(&lab)?.is_empty());
    Ok(())
}

#[test]
fn run_needs_capabilities_and_not_root() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    let router = Started::new(&mut published.run_with(&lab, &needed()?))?;
    exchange_datagrams(&lab)?;

    // The router gives up the capabilities that only its start needs.
    let mut kept = Capability::CAP_BPF.bitmask();
    if !has_tcx() {
        kept |= Capability::CAP_NET_ADMIN.bitmask();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", router.id()))?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("no {name} in {status}"))
    };
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(u64::from_str_radix(value(set)?, 16)?, kept, "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(value(set)?, 16)?, 0, "{set}");
    }
    assert_eq!(value("NoNewPrivs:")?, "1");

    // The remaining ones suffice to change the rules and to end.
    let spec = fs::read_to_string(published.spec())?;
    let fewer = spec.replace("port: 8443", "port: 8444");
    ensure!(fewer != spec, "{spec}");
    fs::write(published.spec(), fewer)?;
    eventually("the rules have changed", || {
        let rules = shell::egress_router(lab.router(), &["rules"])?.success()?;
        Ok(rules.contains("8444/TCP").then_some(()))
    })?;
    exchange_datagrams(&lab)?;
    router.stop()?;
    assert!(attachments(&lab)?.is_empty());
    Ok(())
}

#[test]
fn run_needs_nothing_to_write_to() -> Result<()> {
    // Temporary directories may be file systems of their own.
    const READ_ONLY: &str = "set -e
        mount --bind \"$0\" \"$0\"
        mount -o remount,bind,ro \"$0\"
        mount -o remount,bind,ro /
        if touch \"$0/probe\" /probe 2>/dev/null; then exit 99; fi
        exec \"$@\"";
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    let run = published.run_with(&lab, &needed()?);
    let mut command = lab.router().command("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", READ_ONLY])
        .arg(std::env::temp_dir())
        .arg(run.get_program())
        .args(run.get_args())
        .args(["--metrics-address", "127.0.0.1:9469"]);
    let router = Started::new(&mut command)?;
    exchange_datagrams(&lab)?;
    router.stop()?;
    Ok(())
}

#[test]
fn run_uses_its_file_capabilities_within_a_containers_bounds() -> Result<()> {
    skip_unless_lab_works!();
    if !kernel::features()?.coarse_clock {
        skipped(
            function_name!(),
            "before Linux 5.11 it takes a fourth capability",
        );
        return Ok(());
    }
    let lab = Lab::new()?;
    let published = Published::new()?;
    // Like the container image: permitted, and more than what is granted below.
    let given = "cap_bpf,cap_perfmon,cap_net_admin,cap_sys_resource=p";
    match Command::new("setcap")
        .arg(given)
        .arg(published.binary())
        .status()
    {
        Ok(status) if status.success() => {}
        other => {
            skipped(
                function_name!(),
                &format!("no setcap (libcap2-bin): {other:?}"),
            );
            return Ok(());
        }
    }
    let nobody = NOBODY.to_string();
    let bounded_by = |capabilities: &str| {
        let mut command = lab.router().command("setpriv");
        command
            .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
            .args(["--inh-caps", "-all", "--bounding-set", capabilities])
            .arg(published.binary());
        command
    };
    let spec = published.spec();
    let mut run = bounded_by("-all,+bpf,+perfmon,+net_admin");
    let router = Started::new(run.args(["run", "--no-pin", "--config", &spec]))?;
    exchange_datagrams(&lab)?;
    drop(router);
    // With fewer capabilities the binary still starts, and commands that need none work.
    shell::finish(
        bounded_by("-all")
            .args(["check", &spec])
            .stdin(Stdio::null()),
    )?
    .success()?;
    let mut run = bounded_by("-all,+bpf");
    shell::finish(
        run.args(["run", "--no-pin", "--config", &spec])
            .stdin(Stdio::null()),
    )?
    .failure(PRIVILEGES, &["missing CAP_PERFMON, CAP_NET_ADMIN"])?;
    Ok(())
}

#[test]
fn run_without_cap_perfmon_names_only_that() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    let mut command = published.run_with(&lab, "+bpf,+net_admin");
    let refused = shell::finish(command.stdin(Stdio::null()))?;
    let (_, missing) = refused.stderr.split_once("missing ").unwrap_or_default();
    let (missing, _) = missing.split_once(": ").unwrap_or_default();
    // Before Linux 5.11, both.
    assert!(
        ["CAP_PERFMON", "CAP_PERFMON, CAP_SYS_RESOURCE"].contains(&missing),
        "{refused:?}"
    );
    refused.failure(PRIVILEGES, &[])?;
    assert!(attachments(&lab)?.is_empty());
    Ok(())
}

#[test]
fn commands_that_read_a_router_name_missing_privileges() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    for command in ["rules", "flows", "status"] {
        published
            .as_nobody_in(&lab, &[command])?
            .failure(PRIVILEGES, &["CAP_SYS_ADMIN", "root"])?;
    }
    Ok(())
}

/// A command in the router pod, as the owner of the pinned files but without root's other privileges.
fn with_cap_bpf(lab: &Lab, arguments: &[&str]) -> Result<Finished> {
    let mut command = lab.router().command("setpriv");
    command
        .args(["--inh-caps", "-all", "--bounding-set", "-all,+bpf"])
        .arg(router::binary()?)
        .args(arguments);
    shell::finish(&mut command)
}

#[test]
fn a_pinned_router_is_looked_into_with_no_more_than_cap_bpf() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let pins = BpfFs::new()?;
    let directory = pins.join("router");
    let directory = directory.to_str().context("the path is not UTF-8")?;
    let _router = Running::start(&lab, &["--pin-path", directory])?;
    exchange_datagrams(&lab)?;
    with_cap_bpf(&lab, &["status"])?.failure(PRIVILEGES, &["CAP_SYS_ADMIN"])?;
    let (client, port) = (client(0).address.to_string(), HTTP.port.to_string());
    for arguments in [
        &["status"][..],
        &["rules"],
        &["flows"],
        &["explain", &client, &port, "tcp"],
    ] {
        // Ages are printed in whole seconds.
        let without_times = |text: String| text.replace(|it: char| it.is_ascii_digit(), "");
        let mut outputs = (String::new(), String::new());
        // The kernel's own multicast packets may add a row between the two.
        let compared = eventually("both print the same", || {
            let pinned = with_cap_bpf(&lab, &[arguments, &["--pin-path", directory]].concat())?;
            let found = shell::egress_router(lab.router(), arguments)?;
            outputs = (
                without_times(pinned.success()?),
                without_times(found.success()?),
            );
            Ok((outputs.0 == outputs.1).then_some(()))
        });
        if compared.is_err() {
            assert_eq!(outputs.0, outputs.1, "{arguments:?}");
        }
        compared?;
    }
    let elsewhere = ["status", "--pin-path", directory];
    shell::egress_router(lab.client(), &elsewhere)?
        .failure(NOT_RUNNING, &["another network namespace", directory])?;
    let nothing = pins.join("nothing");
    let nothing = nothing.to_str().context("the path is not UTF-8")?;
    with_cap_bpf(&lab, &["status", "--pin-path", nothing])?
        .failure(NOT_RUNNING, &["no router is pinned", nothing])
}

#[test]
fn without_the_privilege_to_list_programs_the_default_pins_are_looked_into() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let pins = BpfFs::new()?;
    let none: Option<&str> = None;
    // Only this test sees the mount, like the file system itself.
    mount(
        Some(pins.path()),
        "/sys/fs/bpf",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .context("mounting the BPF file system at its usual place")?;
    let other = Path::new(Pins::DEFAULT).join("other");
    Running::start(&lab, &["--pin-path", other.to_str().context("a path")?])?.kill()?;
    let directory = Path::new(Pins::DEFAULT).join("lab");
    let directory = directory.to_str().context("the path is not UTF-8")?;
    fs::rename(
        other.join("INSTANCE"),
        Path::new(Pins::DEFAULT).join("kept"),
    )?;
    fs::remove_dir_all(&other)?;
    let router = Running::start(&lab, &["--pin-path", directory])?;
    with_cap_bpf(&lab, &["status"])?.success()?;

    // As of a router of another version and other interfaces in the same network namespace.
    fs::create_dir(&other)?;
    fs::rename(
        Path::new(Pins::DEFAULT).join("kept"),
        other.join("INSTANCE"),
    )?;
    let data = MapData::from_pin(other.join("INSTANCE"))?;
    let mut map = Array::<_, InstanceInfo>::try_from(Map::from_map_data(data)?)?;
    let mut instance = map.get(&0, 0)?;
    instance.identity.layout_version -= 1;
    instance.identity.cluster_ifindex = u32::MAX;
    map.set(0, instance, 0)?;
    with_cap_bpf(&lab, &["status"])?.failure(1, &["layout version"])?;
    with_cap_bpf(&lab, &["status", "--cluster-interface", "eth0"])?.success()?;
    drop(router);
    let elsewhere = Lab::new()?;
    with_cap_bpf(&elsewhere, &["status"])?.failure(PRIVILEGES, &["CAP_SYS_ADMIN", Pins::DEFAULT])
}

#[test]
fn other_users_cannot_open_pinned_files() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let published = Published::new()?;
    lab.router().run(|| {
        let pins = BpfFs::new()?;
        let directory = pins.join("router");
        let directory = directory.to_str().context("the path is not UTF-8")?;
        let _router = Running::start(&lab, &["--pin-path", directory])?;
        published
            .as_nobody(&["status", "--pin-path", directory], Stdio::null())?
            .failure(PRIVILEGES, &["cannot open", directory])
    })
}

#[test]
fn check_needs_no_privileges() -> Result<()> {
    skip_unless_lab_works!();
    let published = Published::new()?;
    let spec = published.spec();
    let text = published
        .as_nobody(&["check", &spec], Stdio::null())?
        .success()?;
    ensure!(text.starts_with(&format!("{spec}: valid\n")), "{text}");
    ensure!(
        text.contains("8080/TCP → 203.0.113.26:80 from 192.168.12.99"),
        "{text}"
    );

    let input = File::open(example_spec())?;
    let arguments = ["check", "--output", "json", "-"];
    let text = published.as_nobody(&arguments, input.into())?.success()?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report[0]["valid"] == true, "{text}");
    Ok(())
}

#[test]
fn schema_needs_no_privileges_and_is_the_documented_one() -> Result<()> {
    skip_unless_lab_works!();
    let text = Published::new()?
        .as_nobody(&["schema"], Stdio::null())?
        .success()?;
    let printed: Value = serde_json::from_str(&text)?;
    let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/egressrouter.schema.json");
    let documented: Value = serde_json::from_str(&fs::read_to_string(documented)?)?;
    assert_eq!(printed, documented);
    Ok(())
}
