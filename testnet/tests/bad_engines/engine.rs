//! An engine that does to the byte what a script says, over plain TCP: no server library would. It speaks Ollama's dialect or
//! OpenAI's.

use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// The model it says it has.
pub(crate) const MODEL: &str = "bad:latest";
/// Between two bytes of a drip: far below the engine's deadline.
const DRIP: Duration = Duration::from_millis(50);
/// What an endless line is made of.
const FLOOD: &[u8] = &[b'x'; 64 * 1024];

/// A step of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// The head of a good answer, which is chunked.
    Head,
    /// Another head, with a body.
    Status(&'static str, &'static str),
    /// A good line with one word.
    Word,
    /// The last line, with these counts.
    Done(&'static str),
    /// These bytes; as a chunk, if there was a head.
    Raw(&'static [u8]),
    /// These bytes again and again, slowly, until nobody listens.
    Drip(&'static [u8]),
    /// One line as fast as it is taken, until nobody listens.
    Flood,
    /// Nothing for a while.
    Pause(Duration),
    /// Nothing more, until nobody listens.
    Hang,
    /// The last chunk: the body ends in order.
    End,
    /// The connection breaks.
    Cut,
}

impl Act {
    pub(crate) fn done(counts: &'static str) -> Self {
        Act::Done(counts)
    }
}

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Ollama's.
    Ollama,
    /// OpenAI's, as vLLM.
    OpenAi,
}

impl Dialect {
    fn chat_path(self) -> &'static str {
        if self == Dialect::Ollama { "/api/chat" } else { "/v1/chat/completions" }
    }

    fn word(self) -> String {
        match self {
            Dialect::Ollama => "{\"message\":{\"content\":\"word \"},\"done\":false}\n".into(),
            Dialect::OpenAi => format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": "word " } }] })),
        }
    }

    fn done(self, counts: &str) -> String {
        match self {
            Dialect::Ollama => {
                format!("{{\"message\":{{\"content\":\"\"}},\"done\":true,\"done_reason\":\"stop\",{counts}}}\n")
            }
            Dialect::OpenAi => {
                let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
                format!("data: {end}\n\ndata: {{\"choices\":[],\"usage\":{{{counts}}}}}\n\ndata: [DONE]\n\n")
            }
        }
    }
}

/// The running engine; dropping it stops it.
pub(crate) struct BadEngine {
    dialect: Dialect,
    addr: SocketAddr,
    live: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl BadEngine {
    /// Describes itself well, and answers each chat by `script`.
    pub(crate) async fn start(dialect: Dialect, script: Vec<Act>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (live, script): (Arc<AtomicUsize>, Arc<[Act]>) = (Arc::default(), script.into());
        let counter = live.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (script, live) = (script.clone(), counter.clone());
                tokio::spawn(async move { serve(connection, dialect, &script, &live).await });
            }
        });
        BadEngine { dialect, addr, live, task }
    }

    /// As `KIND=URL`.
    pub(crate) fn backend(&self) -> String {
        let kind = if self.dialect == Dialect::Ollama { "ollama" } else { "vllm" };
        format!("{kind}=http://{}", self.addr)
    }

    /// Chats whose connection is still open.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }
}

impl Drop for BadEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request per connection.
async fn serve(mut connection: TcpStream, dialect: Dialect, script: &[Act], live: &AtomicUsize) {
    let Some(path) = read_request(&mut connection).await else { return };
    if path != dialect.chat_path() {
        let body = match path.as_str() {
            "/api/tags" => json!({ "models": [{ "name": MODEL }] }),
            "/api/ps" => json!({ "models": [] }),
            "/v1/models" => json!({ "data": [{ "id": MODEL, "owned_by": "vllm" }] }),
            "/api/version" => json!({ "version": "0.0.0" }),
            _ => json!({}),
        }
        .to_string();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = connection.write_all(head.as_bytes()).await;
        return;
    }
    live.fetch_add(1, Ordering::SeqCst);
    // Fails when the worker has let go, which ends most scripts.
    let _ = play(&mut connection, dialect, script).await;
    live.fetch_sub(1, Ordering::SeqCst);
}

async fn read_request(connection: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.split_whitespace().nth(1).map(str::to_owned);
            }
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn play(connection: &mut TcpStream, dialect: Dialect, script: &[Act]) -> std::io::Result<()> {
    let mut chunked = false;
    for act in script {
        match *act {
            Act::Head => {
                chunked = true;
                connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            }
            Act::Status(status, body) => {
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                connection.write_all(head.as_bytes()).await?;
            }
            Act::Word => chunk(connection, dialect.word().as_bytes()).await?,
            Act::Done(counts) => chunk(connection, dialect.done(counts).as_bytes()).await?,
            Act::Raw(bytes) if chunked => {
                chunk(connection, bytes).await?;
                // Whatever it was, nothing comes after it.
                connection.write_all(b"0\r\n\r\n").await?;
            }
            Act::Raw(bytes) => connection.write_all(bytes).await?,
            Act::Drip(bytes) => loop {
                chunk(connection, bytes).await?;
                sleep(DRIP).await;
            },
            Act::Flood => loop {
                chunk(connection, FLOOD).await?;
            },
            Act::Pause(time) => sleep(time).await,
            Act::Hang => {
                // Returns when the other side closes; it has nothing more to say.
                let _ = connection.read(&mut [0]).await?;
            }
            Act::End => connection.write_all(b"0\r\n\r\n").await?,
            Act::Cut => return Ok(()),
        }
    }
    Ok(())
}

async fn chunk(connection: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    connection.write_all(&framed).await
}
