//! `top`: one frame for scripts, and the live view in a pseudo-terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{HTTP, UNDEFINED_PORT};
use egress_tests::{Connection, Lab, eventually, router, skip_unless_lab_works, tcp};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::Running;
use crate::shell::{self, array, number, string};

/// Leaves the alternate screen (xterm's control sequences, DECRST 1049).
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Runs `work` while data passes in both directions.
fn with_traffic<T>(connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                connection.exchange()?;
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        let traffic = traffic.join();
        traffic.map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
        result
    })
}

fn positive(value: &Value, pointer: &str) -> Result<()> {
    let rate = value.pointer(pointer).and_then(Value::as_f64);
    ensure!(
        rate.is_some_and(|rate| rate > 0.0),
        "{pointer} is {rate:?} in {value:#}"
    );
    Ok(())
}

#[test]
fn once_as_json_has_the_rates_of_current_traffic() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let connection = Connection::open(&lab, HTTP)?;
    let refused = std::net::SocketAddr::new(HTTP.service().ip(), UNDEFINED_PORT);
    let _ = tcp::connect(lab.client(), refused);
    let arguments = ["top", "--once", "--interval", "500ms"];
    let frame = with_traffic(&connection, || shell::json(lab.router(), &arguments))?;

    let client = connection.client.local_addr()?.port();
    let busiest = &array(&frame["flows"]["busiest"])?[0];
    ensure!(
        number(busiest, "/client/port")? == u64::from(client),
        "{busiest:#}"
    );
    let rule = number(busiest, "/rule")?;
    let rules = array(&frame["rules"])?;
    let of_flow = rules.iter().find(|it| it["id"] == rule);
    let of_flow = of_flow.with_context(|| format!("no rule {rule} in {rules:#?}"))?;
    for direction in ["original", "reply"] {
        for unit in ["packets_per_second", "bits_per_second"] {
            let pointer = format!("/rates/{direction}/{unit}");
            for value in [busiest, of_flow, &frame] {
                positive(value, &pointer)?;
            }
        }
    }
    positive(&frame, "/elapsed_seconds")?;
    ensure!(frame["router"]["process_running"] == true, "{frame:#}");
    ensure!(number(&frame, "/flows/total")? >= 1, "{frame:#}");
    // Earlier drops count in the total, but no longer in the rate.
    let outcomes = array(&frame["outcomes"])?;
    ensure!(
        outcomes.iter().any(|it| it["packets_per_second"] == 0.0),
        "{outcomes:#?}"
    );
    for outcome in outcomes {
        ensure!(number(outcome, "/packets")? > 0, "{outcome:#}");
        string(outcome, "/name")?;
    }
    Ok(())
}

#[test]
fn without_a_terminal_one_frame_is_printed_as_text() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let connection = Connection::open(&lab, HTTP)?;
    let arguments = ["top", "--interval", "200ms"];
    let text = with_traffic(&connection, || {
        shell::egress_router(lab.router(), &arguments)?.success()
    })?;
    let client = connection.client.local_addr()?.to_string();
    for words in [
        "router   up ",
        "flows    ",
        "traffic  > ",
        "Rules: ",
        "Flows: ",
    ] {
        ensure!(
            text.lines().any(|line| line.starts_with(words)),
            "no line starts with {words:?} in\n{text}"
        );
    }
    ensure!(text.contains(&client), "{client} is not in\n{text}");
    ensure!(!text.contains('\x1b'), "{text:?}");
    Ok(())
}

#[test]
fn without_a_router_top_says_so_and_leaves_the_terminal_alone() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    shell::egress_router(lab.router(), &["top", "--once"])?
        .failure(8, &["no egress router runs in this network namespace"])?;
    let mut screen = Screen::start(&lab, &["top"])?;
    ensure!(screen.end()? == Some(8), "{}", screen.text());
    ensure!(!screen.text().contains(LEAVE_SCREEN), "{}", screen.text());
    Ok(())
}

/// `egress-router` in a pseudo-terminal of 80 columns and 24 lines.
struct Screen {
    child: Child,
    terminal: File,
    /// Kept open, so that the terminal still exists when the child has ended.
    inside: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None)?;
        let end = || pty.slave.try_clone().map(Stdio::from);
        let child = lab
            .router()
            .command(router::binary()?)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?)
            .spawn()?;
        let terminal = File::from(pty.master);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, to) = (terminal.try_clone()?, Arc::clone(&written));
        // Reading ends with EIO when the terminal's inside is closed.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut written = to.lock().unwrap_or_else(PoisonError::into_inner);
                written.extend_from_slice(&buffer[..length]);
            }
        });
        Ok(Self {
            child,
            terminal,
            inside: pty.slave,
            written,
        })
    }

    /// Everything written to the terminal so far.
    fn text(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn wait_for(&self, words: &str) -> Result<()> {
        eventually(&format!("{words:?} on the screen"), || {
            Ok(self.text().contains(words).then_some(()))
        })
        .with_context(|| format!("the terminal got {:?}", self.text()))
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.terminal.write_all(keys.as_bytes())?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Waits for the exit code; `None` after a signal.
    fn end(&mut self) -> Result<Option<i32>> {
        eventually("the view ends", || Ok(self.child.try_wait()?)).map(|status| status.code())
    }

    /// Whether the terminal edits and echoes lines itself, as a shell expects.
    fn is_restored(&self) -> Result<bool> {
        let flags = tcgetattr(&self.inside)?.local_flags;
        Ok(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG))
    }

    /// Checks that the view has exited with 0 and has restored the terminal.
    fn check_end(&mut self) -> Result<()> {
        let code = self.end()?;
        ensure!(code == Some(0), "exit code {code:?}: {:?}", self.text());
        self.wait_for(LEAVE_SCREEN)?;
        self.wait_for(SHOW_CURSOR)?;
        ensure!(self.is_restored()?, "the terminal is still in raw mode");
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_and_signals_end_the_live_view_and_the_terminal_is_as_before() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    const CONTROL_C: &str = "\x03";
    for keys in ["q", CONTROL_C] {
        let mut screen = Screen::start(&lab, &["top"])?;
        screen.wait_for("Rules: ")?;
        ensure!(!screen.is_restored()?, "the view does not read single keys");
        screen.press(keys)?;
        screen.check_end()?;
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut screen = Screen::start(&lab, &["top"])?;
        screen.wait_for("Rules: ")?;
        screen.signal(signal)?;
        screen.check_end().with_context(|| signal.to_string())?;
    }
    Ok(())
}

#[test]
fn the_live_view_outlives_the_router_and_finds_the_next_one() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &[])?;
    let mut screen = Screen::start(&lab, &["top", "--interval", "100ms"])?;
    screen.wait_for("Rules: ")?;
    router.stop()?;
    screen.wait_for("GONE")?;
    let next = Running::start(&lab, &[])?;
    screen.wait_for(&next.id()?.to_string())?;
    screen.press("?")?;
    screen.wait_for("Keys")?;
    screen.press("?q")?;
    screen.check_end()
}
