//! What this machine is, as tags of an ad. Only what can be seen without a driver library: memory and load come later.

use infernet_wire::capability::ROLE_INFERNET;
use std::path::Path;

/// The tags of this machine: the role, then exactly one of `c0mpute:gpu:nvidia`, `c0mpute:gpu:amd`, `c0mpute:gpu:apple` and
/// `c0mpute:cpu`.
pub fn tags() -> Vec<String> {
    let apple = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    vec![ROLE_INFERNET.into(), processor(apple, |path| Path::new(path).exists()).into()]
}

fn processor(apple: bool, exists: impl Fn(&str) -> bool) -> &'static str {
    if exists("/dev/nvidia0") || exists("/proc/driver/nvidia") {
        "c0mpute:gpu:nvidia"
    } else if exists("/dev/kfd") {
        "c0mpute:gpu:amd"
    } else if apple {
        "c0mpute:gpu:apple"
    } else {
        "c0mpute:cpu"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_exactly_one_thing() {
        let check = |present: &[&str], apple, expected| {
            assert_eq!(processor(apple, |path| present.contains(&path)), expected);
        };
        check(&["/dev/nvidia0", "/dev/kfd"], false, "c0mpute:gpu:nvidia");
        check(&["/proc/driver/nvidia"], false, "c0mpute:gpu:nvidia");
        check(&["/dev/kfd"], false, "c0mpute:gpu:amd");
        check(&[], true, "c0mpute:gpu:apple");
        check(&[], false, "c0mpute:cpu");
    }

    #[test]
    fn an_ad_has_role_and_processor() {
        let tags = tags();
        assert_eq!((tags.len(), tags.first().map(String::as_str)), (2, Some(ROLE_INFERNET)));
    }
}
