//! Many controllers, few workers: what they cost when all are idle, and whether all come forward when none is.
//!
//! The target runs here; its guests are in a process of their own, so the memory and the time of this process are the
//! target's. `scale [--controllers 64] [--queues 8] [--workers 2] [--seconds 10] [--output json]`.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nvmet_benches::{Load, null, serve};
use nvmet_core::device::DoorbellMode;
use nvmet_core::target::{Target, TargetConfig};
use serde_json::{Value, json};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Commands that each guest has in flight when it works.
const DEPTH: u16 = 8;
/// From the last message to the begin of the idle time: whoever is awake has to fall asleep first.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Options {
    controllers: u16,
    queues: u16,
    workers: u16,
    seconds: f64,
    json: bool,
}

impl Options {
    fn parse() -> Fallible<Self> {
        let mut options = Self { controllers: 64, queues: 8, workers: 2, seconds: 10.0, json: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
            match word.as_str() {
                "--controllers" => options.controllers = value.parse()?,
                "--queues" => options.queues = value.parse()?,
                "--workers" => options.workers = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                "--output" if ["json", "text"].contains(&value.as_str()) => options.json = value == "json",
                _ => return Err(format!("{word} {value}: see the head of benches/scale.rs").into()),
            }
        }
        if options.controllers < 2 || options.seconds.is_nan() || options.seconds <= 0.0 {
            return Err("at least two controllers and some time are needed".into());
        }
        Ok(options)
    }
}

/// What was measured in one doorbell mode.
#[derive(Debug)]
struct Figures {
    mode: &'static str,
    /// Part of one processor that the target used while all were idle.
    idle_cpu: f64,
    /// Times that a thread of the target was given a processor, a second, while all were idle.
    idle_wakes: f64,
    /// Memory of a controller with its queues beyond the first, in bytes.
    memory: u64,
    /// The same with the pages of guests' memory that were touched, which are the guests' own.
    memory_with_guest: u64,
    /// Commands a second of all guests together, of the slowest and of the fastest.
    iops: f64,
    slowest: f64,
    fastest: f64,
}

fn main() -> Fallible<()> {
    if let Some(place) = std::env::args().skip(1).collect::<Vec<_>>().strip_prefix(&["--guests".to_owned()]) {
        return guests(place);
    }
    let options = Options::parse()?;
    let mut all = Vec::new();
    for (mode, doorbells) in [("trapped", DoorbellMode::Trapped), ("mapped", DoorbellMode::Mapped)] {
        all.push(measure(&options, mode, doorbells)?);
    }
    let mut out = io::stdout().lock();
    if options.json {
        let modes: serde_json::Map<_, _> =
            all.iter().map(|figures| (figures.mode.to_owned(), json(figures))).collect();
        let Options { controllers, queues, workers, seconds, .. } = options;
        let report = json!({
            "controllers": controllers,
            "queues": queues,
            "workers": workers,
            "seconds": seconds,
            "modes": modes,
        });
        writeln!(out, "{report:#}")?;
    } else {
        all.iter().try_for_each(|figures| print(&mut out, &options, figures))?;
    }
    Ok(())
}

fn json(figures: &Figures) -> Value {
    json!({
        "idle_cpu": figures.idle_cpu,
        "idle_wakes_per_second": figures.idle_wakes,
        "memory_per_controller": figures.memory,
        "memory_per_controller_with_guest": figures.memory_with_guest,
        "iops": figures.iops,
        "iops_slowest": figures.slowest,
        "iops_fastest": figures.fastest,
    })
}

fn print(out: &mut impl Write, options: &Options, figures: &Figures) -> io::Result<()> {
    let Options { controllers, queues, workers, .. } = options;
    writeln!(out, "{controllers} controllers of {queues} queues on {workers} workers, {}:", figures.mode)?;
    writeln!(
        out,
        "  idle:    {:.3} % of a processor, {:.1} wake-ups/s",
        100.0 * figures.idle_cpu,
        figures.idle_wakes
    )?;
    writeln!(
        out,
        "  memory:  {} KiB a controller beyond the first ({} KiB with its guest's rings)",
        figures.memory >> 10,
        figures.memory_with_guest >> 10
    )?;
    writeln!(
        out,
        "  working: {:.0} IOPS together, {:.0} the slowest and {:.0} the fastest controller",
        figures.iops, figures.slowest, figures.fastest
    )
}

fn measure(options: &Options, mode: &'static str, doorbells: DoorbellMode) -> Fallible<Figures> {
    let place = tempfile::tempdir()?;
    let target = Target::start(TargetConfig { workers: options.workers, ..TargetConfig::default() })?;
    let backend = null();
    for number in 0..options.controllers {
        serve(&target, &socket(place.path(), number), doorbells, backend.clone())?;
    }
    let mut guests = Guests::start(place.path(), options.queues)?;
    guests.ask("attach 1")?;
    let first = memory()?;
    guests.ask(&format!("attach {}", options.controllers))?;
    let last = memory()?;
    let each = |first: u64, last: u64| last.saturating_sub(first) / u64::from(options.controllers - 1);

    std::thread::sleep(SETTLE);
    let (before, start) = (schedule()?, Instant::now());
    std::thread::sleep(Duration::from_secs_f64(options.seconds));
    let (after, elapsed) = (schedule()?, start.elapsed().as_secs_f64());

    let answer = guests.ask(&format!("work {}", options.seconds.min(3.0)))?;
    let rates = answer.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    drop(guests);
    target.shutdown(Duration::from_secs(10))?;
    Ok(Figures {
        mode,
        idle_cpu: after.0.saturating_sub(before.0) as f64 / 1e9 / elapsed,
        idle_wakes: after.1.saturating_sub(before.1) as f64 / elapsed,
        memory: each(first.0, last.0),
        memory_with_guest: each(first.1, last.1),
        iops: rates.iter().sum(),
        slowest: rates.iter().copied().fold(f64::INFINITY, f64::min),
        fastest: rates.iter().copied().fold(0.0, f64::max),
    })
}

fn socket(place: &Path, number: u16) -> std::path::PathBuf {
    place.join(format!("{number}"))
}

/// Nanoseconds on a processor, and times on one, of the target's threads.
fn schedule() -> Fallible<(u64, u64)> {
    let mut sum = (0, 0);
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if !std::fs::read_to_string(task.join("comm"))?.starts_with("nvmet-") {
            continue;
        }
        // Time on a processor in ns, time waited for one, times on one (proc(5) calls it schedstat).
        let text = std::fs::read_to_string(task.join("schedstat"))
            .map_err(|error| format!("this kernel does not count the time of threads: {error}"))?;
        let fields = text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [spent, _, times] = fields[..] else { return Err("schedstat has three fields".into()) };
        sum = (sum.0 + spent, sum.1 + times);
    }
    Ok(sum)
}

/// Resident bytes of this process: without memory that is shared with guests, and with it.
fn memory() -> Fallible<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| -> Fallible<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let text = line.and_then(|rest| rest.split_whitespace().next()).ok_or("/proc has changed")?;
        Ok(text.parse::<u64>()? << 10)
    };
    Ok((kib("RssAnon:")? + kib("RssFile:")?, kib("VmRSS:")?))
}

/// The process of the guests: one line asks, one line answers.
struct Guests {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Guests {
    fn start(place: &Path, queues: u16) -> Fallible<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--guests")
            .arg(place)
            .arg(queues.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the guests have no output")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn ask(&mut self, question: &str) -> Fallible<String> {
        let input = self.input.as_mut().ok_or("the guests have no input")?;
        writeln!(input, "{question}")?;
        let mut answer = String::new();
        match self.output.read_line(&mut answer)? {
            0 => Err("the guests have ended: see above".into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The other process: attaches and works as it is asked to.
fn guests(arguments: &[String]) -> Fallible<()> {
    let [place, queues] = arguments else { return Err("a place and a number of queues are needed".into()) };
    let (place, queues) = (Path::new(place), queues.parse()?);
    let mut loads: Vec<Load> = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("attach", total)) => {
                for number in loads.len() as u16..total.parse()? {
                    let mut load = Load::attach(&socket(place, number), queues, DEPTH)?;
                    // What an idle guest has done before.
                    load.run(u64::from(DEPTH))?;
                    loads.push(load);
                }
                "attached".to_owned()
            }
            Some(("work", seconds)) => work(&mut loads, Duration::from_secs_f64(seconds.parse()?))?,
            _ => return Err(format!("{line:?} is not known").into()),
        };
        println!("{answer}");
    }
    Ok(())
}

/// Keeps all busy; commands a second of each.
fn work(loads: &mut [Load], time: Duration) -> Fallible<String> {
    let mut done = vec![0; loads.len()];
    let start = Instant::now();
    while start.elapsed() < time {
        for (load, done) in loads.iter_mut().zip(&mut done) {
            *done += load.reap()?;
            load.start(u64::MAX)?;
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let rates: Vec<String> = done.iter().map(|done| format!("{:.0}", *done as f64 / elapsed)).collect();
    Ok(rates.join(" "))
}
