//! Output to a terminal fits its width; any other output is left as it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::V6;
use egress_tests::{Lab, PATIENCE, Spec, router, skip_unless_lab_works};
use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::shell;

/// What a command prints to a terminal of this width.
fn on_terminal(lab: &Lab, columns: u16, arguments: &[&str]) -> Result<String> {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).context("opening a terminal")?;
    let reader = thread::spawn(move || read(master));
    let mut command = lab.router().command(router::binary()?);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(slave.try_clone()?)
        .stdout(slave);
    let mut child = command.spawn()?;
    // `command` keeps the terminal open.
    drop(command);
    shell::wait(&mut child)?.with_context(|| format!("{arguments:?}: not within {PATIENCE:?}"))?;
    let text = reader.join().expect("reading does not panic")?;
    Ok(text.replace("\r\n", "\n"))
}

fn read(terminal: OwnedFd) -> Result<String> {
    let mut bytes = Vec::new();
    match File::from(terminal).read_to_end(&mut bytes) {
        // Linux reports EIO when the other end of the terminal is closed.
        Err(error) if error.raw_os_error() != Some(nix::libc::EIO) => return Err(error.into()),
        _ => {}
    }
    String::from_utf8(bytes).map_err(|error| io::Error::other(error).into())
}

#[test]
fn text_fits_the_terminal() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let fallback = V6.fallback_server.address;
    let _router = lab.start_router_by(&Spec::dual_stack().with_fallback(fallback))?;
    let (client, port) = (V6.client(0).address.to_string(), V6.tls().port.to_string());
    for arguments in [
        &["status"][..],
        &["rules"],
        &["flows"],
        &["explain", &client, &port, "tcp"],
        &[
            "status",
            "--pin-path",
            "/sys/fs/bpf/of/somebody/who/is/not/there/and/has/a/long/name",
        ],
        &["run", "--help"],
    ] {
        for columns in [80, 200] {
            let text = on_terminal(&lab, columns, arguments)?;
            ensure!(!text.is_empty(), "{arguments:?} printed nothing");
            for line in text.lines() {
                ensure!(
                    line.chars().count() <= columns.into(),
                    "{arguments:?} is wider than {columns} columns:\n{text}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn output_to_anything_but_a_terminal_has_whole_lines() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = lab.start_router_by(&Spec::dual_stack())?;
    let explain = ["explain", &V6.client(0).address.to_string(), "8443", "tcp"];
    let text = shell::egress_router(lab.router(), &explain)?.success()?;
    ensure!(text.lines().any(|line| line.chars().count() > 80), "{text}");
    let narrow = on_terminal(&lab, 80, &explain)?;
    ensure!(narrow.lines().count() > text.lines().count(), "{narrow}");
    Ok(())
}
