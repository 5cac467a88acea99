//! NVIDIA, by the driver's own library (NVML), which is loaded when it is there. The only file that names `nvml_wrapper`.

use super::{Gpu, MAX_GPUS, Vendor};
use nvml_wrapper::{Nvml, enum_wrappers::device::TemperatureSensor};
use tracing::debug;

/// Readings without a driver before it is looked for again: a driver that is installed meanwhile is found within a minute.
const PAUSE: u32 = 12;

/// The driver's library, once it was found.
#[derive(Default)]
pub(super) struct Nvidia {
    nvml: Option<Nvml>,
    /// Readings until it is looked for again.
    pause: u32,
}

impl Nvidia {
    /// Its GPUs; none without a driver.
    pub(super) fn read(&mut self) -> Vec<Gpu> {
        self.look_for_driver();
        let Some(nvml) = &self.nvml else { return Vec::new() };
        match nvml.device_count() {
            Ok(count) => (0..count).take(MAX_GPUS).filter_map(|index| gpu(nvml, index)).collect(),
            Err(error) => {
                // As after an update of the driver: its library has to be loaded anew.
                debug!("NVML does not tell its GPUs: {error}");
                self.nvml = None;
                Vec::new()
            }
        }
    }

    fn look_for_driver(&mut self) {
        if self.nvml.is_some() {
            return;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        match Nvml::init() {
            Ok(nvml) => self.nvml = Some(nvml),
            Err(error) => {
                debug!("no NVML: {error}");
                self.pause = PAUSE;
            }
        }
    }
}

/// What one GPU tells. Small boards tell no power, old ones no utilisation.
fn gpu(nvml: &Nvml, index: u32) -> Option<Gpu> {
    let device = nvml.device_by_index(index).ok()?;
    let memory = device.memory_info().ok();
    Some(Gpu {
        vendor: Vendor::Nvidia,
        model: device.name().unwrap_or_else(|_| "NVIDIA GPU".into()),
        memory_bytes: memory.as_ref().map(|memory| memory.total),
        used_bytes: memory.map(|memory| memory.used),
        busy_percent: device.utilization_rates().ok().and_then(|rates| u16::try_from(rates.gpu).ok()),
        celsius: device.temperature(TemperatureSensor::Gpu).ok().and_then(|celsius| u16::try_from(celsius).ok()),
        watts: device.power_usage().ok().map(|milliwatts| milliwatts.div_ceil(1_000)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_has_no_such_gpu_and_looks_again_later() {
        let mut nvidia = Nvidia::default();
        let gpus = nvidia.read();
        assert!(gpus.iter().all(|gpu| gpu.vendor == Vendor::Nvidia && !gpu.model.is_empty()));
        if nvidia.nvml.is_none() {
            assert_eq!((gpus.len(), nvidia.pause), (0, PAUSE));
            (0..PAUSE).for_each(|_| assert!(nvidia.read().is_empty()));
            assert_eq!(nvidia.pause, 0);
        }
    }
}
