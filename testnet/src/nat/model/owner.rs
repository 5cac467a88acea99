//! Whose a socket is that is bound to no address: what it sends seems to come from 127.0.0.1, as AutoNAT's dials back do, which come
//! from a port of their own. Linux tells in `/proc` which process has it.

use std::{fs, path::Path};

/// Descriptors of a process that are looked at: more than a node has.
const MAX_DESCRIPTORS: usize = 16_384;

/// Which of `processes` has UDP port `port` of all IPv4 addresses, or of all addresses.
pub(super) fn of_port(port: u16, processes: impl Iterator<Item = u32>) -> Option<u32> {
    let inodes = inodes(port);
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut processes = processes;
    processes.find(|process| has(*process, &links))
}

/// Of the sockets of that port, as `/proc/net/udp` lists them: `sl local_address rem_address st queues timer retransmits uid timeout inode`.
fn inodes(port: u16) -> Vec<String> {
    let local = format!(":{port:04X}");
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines());
    let rows = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    let bound = rows.filter(|row| row.get(1).is_some_and(|at| at.ends_with(&local) && is_any(at)));
    bound.filter_map(|row| row.get(9).map(|inode| (*inode).to_owned())).collect()
}

/// Whether all digits of an address are zero.
fn is_any(at: &str) -> bool {
    at.split_once(':').is_some_and(|(ip, _)| ip.bytes().all(|digit| digit == b'0'))
}

fn has(process: u32, links: &[String]) -> bool {
    let descriptors = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"));
    let descriptors = descriptors.into_iter().flatten().flatten().take(MAX_DESCRIPTORS);
    let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_socket_on_all_addresses_is_its_process_s() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let me = std::process::id();
        assert_eq!(of_port(port, [1, me].into_iter()), Some(me));
        drop(socket);
        assert_eq!(of_port(port, [me].into_iter()), None);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            of_port(socket.local_addr().unwrap().port(), [me].into_iter()),
            None,
            "that one says who it is by its address"
        );
    }
}
