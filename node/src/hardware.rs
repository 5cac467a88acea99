//! What this machine is and how busy it is: GPUs, processor load, memory.
//!
//! [`Sensors`] read; [`Machine`] is the real one, and tests script theirs. [`watch()`] reads every five seconds on a thread of its
//! own, so that a driver that hangs holds up nobody: after half a minute its GPUs count as gone, until it answers again. What the
//! mesh is told of it is [`tags`] alone: vendor and a class of memory, nothing that tells one machine from another (no serial, no
//! UUID, no host name, no exact size).
//!
//! A driver library or tool that is not there means "no GPU of that make", never an error.
//!
//! | file | idea |
//! |---|---|
//! | `nvidia` | NVML, the driver's own library |
//! | `amd` | what `rocm-smi --json` prints |
//! | `apple` | unified memory, as `sysctl` tells it |
//! | `host` | load and memory from `/proc`, room on a disk |
//! | `tool` | a program's output, within a time and a size |

mod amd;
mod apple;
mod host;
mod nvidia;
mod tool;

pub use host::{descriptors, free_disk, memory};

use infernet_wire::capability::ROLE_INFERNET;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{info, warn};

/// How often the sensors are read: temperatures move in seconds, and a reading of `rocm-smi` takes half of one.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How long a reading may take before its GPUs count as gone: six periods, as a driver that is being reset takes some seconds.
const STALE: Duration = Duration::from_secs(30);
/// How long a start waits for the first reading: loading NVIDIA's library takes one second, a machine with sixteen GPUs two.
const FIRST: Duration = Duration::from_secs(5);
/// GPUs of one machine: the largest servers have 16.
const MAX_GPUS: usize = 32;
const GIB: u64 = 1 << 30;

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Apple: part of the processor, with the machine's memory.
    Apple,
}

impl Vendor {
    /// Its name in tags and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Vendor::Nvidia => "nvidia",
            Vendor::Amd => "amd",
            Vendor::Apple => "apple",
        }
    }
}

/// A GPU as it was read last. What its driver does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// Who made it.
    pub vendor: Vendor,
    /// The product's name.
    pub model: String,
    /// Its memory, in bytes; for Apple that of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_bytes: Option<u64>,
    /// How much of it is in use, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_bytes: Option<u64>,
    /// How busy it is, in percent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub busy_percent: Option<u16>,
    /// How hot it is, in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub celsius: Option<u16>,
    /// What it draws, in watts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watts: Option<u32>,
}

/// The machine as it was read last. What it does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Reading {
    /// Its GPUs, in the order of their drivers.
    pub gpus: Vec<Gpu>,
    /// Processes that run or wait to, for each hundred processors, as the mean of a minute: 100 is all of them busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u16>,
    /// Its memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How much of it programs could still have, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

impl Reading {
    /// The hottest GPU's temperature, in degrees Celsius.
    pub fn celsius(&self) -> Option<u16> {
        self.gpus.iter().filter_map(|gpu| gpu.celsius).max()
    }

    /// What all GPUs draw together, in watts.
    pub fn watts(&self) -> Option<u32> {
        let told: Vec<u32> = self.gpus.iter().filter_map(|gpu| gpu.watts).collect();
        (!told.is_empty()).then(|| told.iter().fold(0, |sum: u32, watts| sum.saturating_add(*watts)))
    }

    /// How busy the busiest GPU is, in percent.
    pub fn gpu_percent(&self) -> Option<u16> {
        self.gpus.iter().filter_map(|gpu| gpu.busy_percent).max()
    }

    /// The memory in which an engine can keep a model for its GPUs, in bytes: engines spread a model over all that a machine
    /// has. `None` without a GPU that tells.
    pub fn gpu_memory(&self) -> Option<u64> {
        let told: Vec<u64> = self.gpus.iter().filter_map(|gpu| gpu.memory_bytes).collect();
        (!told.is_empty()).then(|| told.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)))
    }
}

/// Whatever can be asked how the machine is. May block for some seconds.
pub trait Sensors: Send {
    /// How it is now. Never fails: what can't be read is absent.
    fn read(&mut self) -> Reading;
}

/// This machine.
#[derive(Default)]
pub struct Machine {
    nvidia: nvidia::Nvidia,
    amd: amd::Amd,
    apple: apple::Apple,
}

impl Sensors for Machine {
    fn read(&mut self) -> Reading {
        let mut gpus = self.nvidia.read();
        gpus.extend(self.amd.read());
        gpus.extend(self.apple.read());
        gpus.truncate(MAX_GPUS);
        let host = without_gpus();
        let apple = gpus.iter().find(|gpu| gpu.vendor == Vendor::Apple).and_then(|gpu| gpu.memory_bytes);
        Reading { memory_bytes: host.memory_bytes.or(apple), gpus, ..host }
    }
}

/// What the system tells at once, whatever the drivers do.
fn without_gpus() -> Reading {
    let (memory_bytes, available_bytes) = host::memory();
    Reading { gpus: Vec::new(), load_percent: host::load_percent(), memory_bytes, available_bytes }
}

/// This machine, if it tells within `limit`; else what it tells without its GPUs.
pub async fn once(limit: Duration) -> Reading {
    let (done, reading) = oneshot::channel();
    thread::spawn(move || _ = done.send(Machine::default().read()));
    timeout(limit, reading).await.ok().and_then(Result::ok).unwrap_or_else(without_gpus)
}

/// Reads once, and goes on in the background until nobody listens any more.
pub async fn watch(sensors: Box<dyn Sensors>) -> watch::Receiver<Reading> {
    watch_every(Pace { period: PERIOD, stale: STALE, first: FIRST }, sensors).await
}

/// How long a reading may take.
#[derive(Clone, Copy)]
struct Pace {
    period: Duration,
    stale: Duration,
    first: Duration,
}

async fn watch_every(pace: Pace, sensors: Box<dyn Sensors>) -> watch::Receiver<Reading> {
    // One reading waits at most: the thread sleeps when nobody takes it.
    let (read, mut readings) = mpsc::channel(1);
    thread::spawn(move || read_all(sensors, pace.period, &read));
    let first = timeout(pace.first, readings.recv()).await.ok().flatten();
    let is_late = first.is_none();
    if is_late {
        warn!("the GPU driver does not answer; the node starts without it");
    }
    let (sender, receiver) = watch::channel(first.unwrap_or_else(without_gpus));
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = pass_on(readings, &sender, pace, is_late) => {}
        }
    });
    receiver
}

/// Reads until nobody listens. Sensors that panic are replaced by the machine's own.
fn read_all(mut sensors: Box<dyn Sensors>, period: Duration, readings: &mpsc::Sender<Reading>) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| sensors.read())) {
            Ok(reading) => {
                if readings.blocking_send(reading).is_err() {
                    return;
                }
            }
            Err(_) => sensors = Box::<Machine>::default(),
        }
        thread::sleep(period);
    }
}

/// Every reading, and while none comes, what is known without: whoever decides by time of day waits for the next.
async fn pass_on(mut readings: mpsc::Receiver<Reading>, sender: &watch::Sender<Reading>, pace: Pace, mut is_late: bool) {
    loop {
        let wait = if is_late { pace.period } else { pace.stale };
        match timeout(wait, readings.recv()).await {
            Ok(Some(reading)) => {
                if std::mem::take(&mut is_late) {
                    info!("the GPU driver answers again");
                }
                sender.send_replace(reading);
            }
            Ok(None) => return,
            Err(_) => {
                if !std::mem::replace(&mut is_late, true) {
                    warn!(seconds = pace.stale.as_secs(), "the GPU driver does not answer; its GPUs count as gone");
                }
                sender.send_replace(without_gpus());
            }
        }
    }
}

/// The tags of a machine: the role, then exactly one of `c0mpute:gpu:nvidia`, `c0mpute:gpu:amd`, `c0mpute:gpu:apple` and
/// `c0mpute:cpu`, and for a GPU whose memory is known the class of the largest, such as `c0mpute:vram:8-16gb`.
pub fn tags(reading: &Reading) -> Vec<String> {
    let apple = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    let seen = reading.gpus.first().map(|gpu| gpu.vendor).or_else(|| present(apple, |path| Path::new(path).exists()));
    let processor = seen.map_or("c0mpute:cpu".into(), |vendor| format!("c0mpute:gpu:{}", vendor.name()));
    let largest = reading.gpus.iter().filter_map(|gpu| gpu.memory_bytes).max();
    let class = largest.map(|bytes| format!("c0mpute:vram:{}", vram_class(bytes)));
    [ROLE_INFERNET.to_owned(), processor].into_iter().chain(class).collect()
}

/// A GPU that is there though its driver tells nothing of it.
fn present(apple: bool, exists: impl Fn(&str) -> bool) -> Option<Vendor> {
    if exists("/dev/nvidia0") || exists("/proc/driver/nvidia") {
        Some(Vendor::Nvidia)
    } else if exists("/dev/kfd") {
        Some(Vendor::Amd)
    } else {
        apple.then_some(Vendor::Apple)
    }
}

/// The class of a GPU's memory, in the words of tags. Drivers keep some of it back, so it is rounded to what is printed on the box.
pub fn vram_class(bytes: u64) -> &'static str {
    match bytes.saturating_add(GIB / 2) / GIB {
        0..8 => "<8gb",
        8..16 => "8-16gb",
        16..24 => "16-24gb",
        24..48 => "24-48gb",
        _ => ">=48gb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(vendor: Vendor, mib: u64) -> Gpu {
        let memory_bytes = (mib > 0).then_some(mib << 20);
        Gpu { vendor, model: "a".into(), memory_bytes, used_bytes: None, busy_percent: None, celsius: None, watts: None }
    }

    #[test]
    fn each_machine_is_exactly_one_thing() {
        let check = |paths: &[&str], apple, expected| {
            assert_eq!(present(apple, |path| paths.contains(&path)), expected);
        };
        check(&["/dev/nvidia0", "/dev/kfd"], false, Some(Vendor::Nvidia));
        check(&["/proc/driver/nvidia"], false, Some(Vendor::Nvidia));
        check(&["/dev/kfd"], false, Some(Vendor::Amd));
        check(&[], true, Some(Vendor::Apple));
        check(&[], false, None);
    }

    #[test]
    fn an_ad_has_role_processor_and_class_and_nothing_else() {
        let told = |gpus| tags(&Reading { gpus, memory_bytes: Some(1), ..Reading::default() });
        let two = told(vec![gpu(Vendor::Nvidia, 8_188), gpu(Vendor::Nvidia, 24_564)]);
        assert_eq!(two, [ROLE_INFERNET, "c0mpute:gpu:nvidia", "c0mpute:vram:24-48gb"]);
        assert_eq!(told(vec![gpu(Vendor::Amd, 0)]), [ROLE_INFERNET, "c0mpute:gpu:amd"]);
        assert_eq!(tags(&Reading::default()).len(), 2);
    }

    #[test]
    fn classes_are_those_of_the_box() {
        let check = |mib: u64, expected| assert_eq!(vram_class(mib << 20), expected, "{mib} MiB");
        check(0, "<8gb");
        check(6_144, "<8gb");
        // An RTX 4060, 4080, 4090, A6000 and H100, as their driver has them.
        check(8_188, "8-16gb");
        check(16_376, "16-24gb");
        check(24_564, "24-48gb");
        check(49_140, ">=48gb");
        check(81_559, ">=48gb");
        check(u64::MAX >> 20, ">=48gb");
    }

    #[test]
    fn several_gpus_count_together() {
        let hot = |celsius, watts, busy| Gpu {
            celsius: Some(celsius),
            watts: Some(watts),
            busy_percent: Some(busy),
            ..gpu(Vendor::Nvidia, 1)
        };
        let reading = Reading { gpus: vec![hot(60, 100, 3), hot(70, 50, 1), gpu(Vendor::Nvidia, 1)], ..Reading::default() };
        assert_eq!((reading.celsius(), reading.watts(), reading.gpu_percent()), (Some(70), Some(150), Some(3)));
        assert_eq!(reading.gpu_memory(), Some(3 << 20));
        let none = Reading::default();
        assert_eq!((none.celsius(), none.watts(), none.gpu_percent(), none.gpu_memory()), (None, None, None, None));
    }

    struct Scripted(Vec<Reading>);

    impl Sensors for Scripted {
        fn read(&mut self) -> Reading {
            self.0.pop().expect("no reading left")
        }
    }

    /// Fast, for tests.
    const FAST: Pace =
        Pace { period: Duration::from_millis(1), stale: Duration::from_millis(20), first: Duration::from_millis(20) };

    #[tokio::test]
    async fn sensors_that_break_leave_the_last_reading_until_the_machine_is_read() {
        // No machine tells so much.
        let first = Reading { load_percent: Some(201), ..Reading::default() };
        let patient = Pace { first: Duration::from_secs(60), stale: Duration::from_secs(60), ..FAST };
        let mut readings = watch_every(patient, Box::new(Scripted(vec![first.clone()]))).await;
        assert_eq!(*readings.borrow_and_update(), first);
        // The next reading panics; the one after it is this machine's.
        readings.changed().await.expect("goes on");
        assert_ne!(readings.borrow().load_percent, Some(201));
    }

    /// A driver that answers when a test lets it.
    struct Hung(std::sync::mpsc::Receiver<Reading>);

    impl Sensors for Hung {
        fn read(&mut self) -> Reading {
            self.0.recv().unwrap_or_default()
        }
    }

    fn with_gpu() -> Reading {
        Reading { gpus: vec![gpu(Vendor::Nvidia, 8_188)], ..Reading::default() }
    }

    async fn until(readings: &mut watch::Receiver<Reading>, gpus: usize) {
        let seen = readings.wait_for(|reading| reading.gpus.len() == gpus);
        timeout(Duration::from_secs(60), seen).await.expect("in time").expect("goes on");
    }

    #[tokio::test]
    async fn a_driver_that_hangs_at_the_start_keeps_no_node_from_starting() {
        let (answer, hung) = std::sync::mpsc::sync_channel(1);
        let mut readings = timeout(Duration::from_secs(60), watch_every(FAST, Box::new(Hung(hung)))).await.expect("starts");
        assert_eq!(readings.borrow_and_update().gpus, []);
        readings.changed().await.expect("whoever decides by time of day is told meanwhile");
        answer.send(with_gpu()).expect("somebody reads");
        until(&mut readings, 1).await;
    }

    #[tokio::test]
    async fn gpus_of_a_driver_that_hangs_later_are_gone_until_it_answers() {
        let (answer, hung) = std::sync::mpsc::sync_channel(1);
        answer.send(with_gpu()).expect("room");
        let mut readings = watch_every(Pace { first: Duration::from_secs(60), ..FAST }, Box::new(Hung(hung))).await;
        until(&mut readings, 1).await;
        until(&mut readings, 0).await;
        answer.send(with_gpu()).expect("somebody reads");
        until(&mut readings, 1).await;
    }
}
