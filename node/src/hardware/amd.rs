//! AMD, as `rocm-smi --json` tells: an object with one of texts for each card. Its fields have changed their names over the
//! years (ROCm 4 to 7), numbers come as texts, and warnings may stand before the JSON.

use super::{Gpu, MAX_GPUS, Vendor, tool::Tool};
use serde_json::{Map, Value};
use std::time::Duration;

/// It takes half a second; one that hangs with its driver is left.
const LIMIT: Duration = Duration::from_secs(4);
/// The longest name of a product that is kept.
const MAX_NAME: usize = 64;
const ARGS: [&str; 7] = ["--showproductname", "--showuse", "--showtemp", "--showpower", "--showmeminfo", "vram", "--json"];
/// Where it is if it is not in `PATH`.
const INSTALLED: &str = "/opt/rocm/bin/rocm-smi";

/// AMD's tool.
#[derive(Default)]
pub(super) struct Amd {
    tool: Tool,
}

impl Amd {
    /// The GPUs of AMD's driver; none without its tool.
    pub(super) fn read(&mut self) -> Vec<Gpu> {
        let said = self.tool.output("rocm-smi", &ARGS, LIMIT).or_else(|| self.tool.output(INSTALLED, &ARGS, LIMIT));
        said.map(|text| parse(&text)).unwrap_or_default()
    }
}

fn parse(text: &str) -> Vec<Gpu> {
    let json = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
    let mut read = serde_json::Deserializer::from_str(json).into_iter::<Map<String, Value>>();
    let Some(Ok(cards)) = read.next() else { return Vec::new() };
    let number = |name: &str| name.strip_prefix("card").and_then(|n| n.parse::<u32>().ok());
    let mut cards: Vec<_> =
        cards.iter().filter_map(|(name, card)| Some((number(name)?, Card(card.as_object()?).gpu()))).collect();
    cards.sort_by_key(|(number, _)| *number);
    cards.into_iter().map(|(_, gpu)| gpu).take(MAX_GPUS).collect()
}

struct Card<'a>(&'a Map<String, Value>);

impl Card<'_> {
    fn gpu(&self) -> Gpu {
        Gpu {
            vendor: Vendor::Amd,
            model: self.name(),
            memory_bytes: self.number(|key| key == "vram total memory (b)").map(|bytes| bytes as u64),
            used_bytes: self.number(|key| key == "vram total used memory (b)").map(|bytes| bytes as u64),
            busy_percent: self.number(|key| key == "gpu use (%)").map(|percent| percent as u16),
            celsius: self.celsius().map(|celsius| celsius.round() as u16),
            watts: self.number(|key| key.ends_with("power (w)") && !key.starts_with("max ")).map(|watts| watts.ceil() as u32),
        }
    }

    /// The edge's, or where a card has no such sensor the hottest one's.
    fn celsius(&self) -> Option<f64> {
        let edge = self.number(|key| key == "temperature (sensor edge) (c)");
        edge.or_else(|| {
            self.numbers(|key| key.starts_with("temperature (sensor"))
                .fold(None, |most: Option<f64>, next| Some(most.map_or(next, |most| most.max(next))))
        })
    }

    /// A name that a person knows, if there is one: some are numbers in hex.
    fn name(&self) -> String {
        let named =
            |wanted: &str| self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).and_then(|(_, v)| v.as_str());
        let known = ["Card Series", "Card Model", "Card SKU"].into_iter().filter_map(named);
        let plain = |name: &&str| !name.is_empty() && !name.starts_with("0x") && !name.starts_with("N/A");
        let name = known.map(str::trim).find(plain).unwrap_or("AMD GPU");
        name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
    }

    fn number(&self, wanted: impl Fn(&str) -> bool) -> Option<f64> {
        self.numbers(wanted).next()
    }

    /// The numbers, none of them negative, of the fields whose lower-case names are `wanted`.
    fn numbers(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = f64> {
        let fields = self.0.iter().filter(move |(key, _)| wanted(&key.to_ascii_lowercase()));
        let read = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        fields.filter_map(move |(_, value)| read(value)).filter(|number| number.is_finite() && *number >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of ROCm 5: one card.
    const ROCM_5: &str = r#"{"card0": {"Temperature (Sensor edge) (C)": "52.0", "Temperature (Sensor junction) (C)": "61.0",
        "Temperature (Sensor memory) (C)": "58.0", "Average Graphics Package Power (W)": "38.0", "GPU use (%)": "7",
        "VRAM Total Memory (B)": "17163091968", "VRAM Total Used Memory (B)": "1219493888",
        "Card series": "Radeon RX 6800 XT", "Card model": "0x0e3a", "Card vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
        "Card SKU": "D4140E", "Unique ID": "0xac1b58f8c066790f"}, "system": {"Driver version": "5.18.13"}}"#;
    /// That of ROCm 6, with a warning before it, two cards in another order, and a data centre's card that has no edge sensor.
    const ROCM_6: &str = r#"WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status

{"card1": {"Temperature (Sensor junction) (C)": "41.0", "Temperature (Sensor memory) (C)": "44.6",
        "Current Socket Graphics Package Power (W)": "130.4", "Max Graphics Package Power (W)": "750.0", "GPU use (%)": "100",
        "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "0", "Card Series": "AMD Instinct MI300X",
        "Card Model": "0x74a1"},
 "card0": {"Temperature (Sensor edge) (C)": "N/A", "GPU use (%)": "N/A", "Card Series": "N/A", "GFX Version": "gfx1103"}}
"#;

    #[test]
    fn both_shapes_are_understood() {
        let old = parse(ROCM_5);
        let expected = Gpu {
            vendor: Vendor::Amd,
            model: "Radeon RX 6800 XT".into(),
            memory_bytes: Some(17_163_091_968),
            used_bytes: Some(1_219_493_888),
            busy_percent: Some(7),
            celsius: Some(52),
            watts: Some(38),
        };
        assert_eq!(old, [expected]);
        let new = parse(ROCM_6);
        assert_eq!(new.iter().map(|gpu| gpu.model.as_str()).collect::<Vec<_>>(), ["AMD GPU", "AMD Instinct MI300X"]);
        assert_eq!((new[0].celsius, new[0].busy_percent, new[0].watts, new[0].memory_bytes), (None, None, None, None));
        assert_eq!((new[1].celsius, new[1].busy_percent, new[1].watts), (Some(45), Some(100), Some(131)));
    }

    #[test]
    fn nonsense_is_no_gpu() {
        for text in ["", "no GPU", "{", "[]", "{}", r#"{"card0": 3}"#, r#"{"cardx": {}}"#, r#"{"system": {}}"#] {
            assert_eq!(parse(text), [], "{text:?}");
        }
        let wild = parse(r#"{"card0": {"GPU use (%)": "-1", "VRAM Total Memory (B)": "1e400", "Card series": "a\u001b[2J"}}"#);
        assert_eq!((wild[0].busy_percent, wild[0].memory_bytes, wild[0].model.as_str()), (None, None, "a[2J"));
    }
}
