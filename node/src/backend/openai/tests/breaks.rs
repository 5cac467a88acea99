//! Answers that stop, lie, hang or are something else.

use super::*;
use crate::backend::{Stage, ndjson::MAX_LINE_BYTES};
use std::sync::atomic::{AtomicUsize, Ordering};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_answer_is_whole_only_by_its_finish_reason() {
    let whole = [piece("Once"), end("stop")];
    for tail in ["", "data: [DONE]\n\n", "data: [DONE]\n", ": bye\n\n"] {
        let (chunks, error) = ask_for(events(&whole) + tail).await;
        assert_eq!((text(&chunks).as_str(), error), ("Once", None), "{tail:?}");
        assert_eq!(chunks.last().cloned(), done(None, None, FinishReason::STOP), "{tail:?}");
    }
    // llama-cpp-python ends so what it has broken off.
    for tail in ["", "data: [DONE]\n\n", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"] {
        let (chunks, error) = ask_for(events(&[piece("Once")]) + tail).await;
        assert_eq!((text(&chunks).as_str(), error), ("Once", Some(BackendError::Truncated)), "{tail:?}");
        assert_eq!(chunks.len(), 1, "no end: {chunks:?}");
    }
    let (_, error) = ask_for(events(&[piece("Once")]) + "data: {\"choices\":[{\"ind").await;
    assert_eq!(error, Some(BackendError::Truncated));
    let (_, error) = ask_for("").await;
    assert_eq!(error, Some(BackendError::Truncated));
}

#[tokio::test]
async fn keep_alive_comments_and_split_characters_change_nothing() {
    let stream = format!(": ping\n\n{}:\n\n{}", events(&[piece("Füchse 🦊")]), events(&[end("stop"), usage(9, 3)]));
    let engine = serve("vllm", move |_, _, _| {
        let bytes: Vec<_> = stream.clone().into_bytes().into_iter().map(|byte| Ok::<_, Infallible>(vec![byte])).collect();
        HttpBody::from_stream(stream::iter(bytes)).into_response()
    })
    .await;
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((text(&chunks).as_str(), error), ("Füchse 🦊", None));
    assert_eq!(chunks.last().cloned(), done(Some(9), Some(3), FinishReason::STOP));
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_answer() {
    let told = |text: &str| Some(BackendError::Engine(text.into()));
    let first = events(&[piece("Once")]);
    for (rest, expected) in [
        ("data: {\"error\":{\"message\":\"out of memory\\u001b[2J\",\"code\":500}}\n\n", told("out of memory [2J")),
        ("data: {\"error\":\"out of memory\"}\n\n", told("out of memory")),
        ("event: error\ndata: {\"message\":\"out of memory\"}\n\n", told("out of memory")),
        ("event: error\ndata: out of memory\n\n", told("out of memory")),
        // Without the stream that was begun.
        ("{\"error\":{\"message\":\"out of memory\"}}\n", told("out of memory")),
    ] {
        let (chunks, error) = ask_for(first.clone() + rest + "data: [DONE]\n\n").await;
        assert_eq!((text(&chunks).as_str(), error), ("Once", expected), "{rest}");
    }
}

#[tokio::test]
async fn another_program_is_recognised() {
    for body in [
        "<html>It works!</html>\n",
        "data: <html>\n\n",
        "data: {\"x\":1}\n\n",
        "data: [1]\n\n",
        "{\"choices\":[]}\n",
        "hello\n",
    ] {
        let (_, error) = ask_for(body).await;
        assert!(matches!(&error, Some(BackendError::Malformed { kind: "vllm", .. })), "{body}: {error:?}");
    }
    let failing = |_: &str, _: &Value, _: &HeaderMap| (StatusCode::INTERNAL_SERVER_ERROR, "<html>oops</html>").into_response();
    let (_, error) = ask(&*serve("vllm", failing).await, request()).await;
    assert!(matches!(error, Some(BackendError::Status { status: 500, .. })), "{error:?}");
    let moved = |_: &str, _: &Value, _: &HeaderMap| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", "http://169.254.169.254/")]).into_response()
    };
    let (_, error) = ask(&*serve("vllm", moved).await, request()).await;
    assert!(matches!(error, Some(BackendError::Status { status: 307, .. })), "redirects are not followed: {error:?}");
}

#[tokio::test]
async fn an_endless_event_is_refused() {
    let huge = |_: &str, _: &Value, _: &HeaderMap| {
        HttpBody::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 64 * 1024]))).into_response()
    };
    let (_, error) = ask(&*serve("vllm", huge).await, request()).await;
    assert_eq!(error, Some(BackendError::LineTooLong { limit: MAX_LINE_BYTES }));
    assert!(matches!(serve("vllm", huge).await.models().await, Err(BackendError::TooLarge { .. })));
}

#[tokio::test]
async fn counts_that_lie_are_bounded_by_the_bytes() {
    let many = json!({ "choices": [{ "index": 0, "delta": { "content": "ab" }, "token_ids": [1, 2, 3, 4, 5] }] });
    let (chunks, _) = ask_for(events(&[many.clone(), many, end("stop"), usage(1, u64::from(u32::MAX))])).await;
    let counts: Vec<u32> =
        chunks.iter().filter_map(|c| if let Chunk::Text { tokens, .. } = c { Some(*tokens) } else { None }).collect();
    assert_eq!(counts, [2, 4]);
    // Several tokens in a chunk, told as such.
    let several =
        |text: &str, ids: &[u32]| json!({ "choices": [{ "index": 0, "delta": { "content": text }, "token_ids": ids }] });
    let (chunks, _) = ask_for(events(&[several("Once upon", &[7, 8]), several(" a time", &[9, 10, 11]), end("stop")])).await;
    assert!(matches!(&chunks[..2], [Chunk::Text { tokens: 2, .. }, Chunk::Text { tokens: 5, .. }]), "{chunks:?}");
    for count in ["-1", "1e99", "\"x\""] {
        let last = format!("data: {{\"choices\":[],\"usage\":{{\"completion_tokens\":{count}}}}}\n\n");
        let (_, error) = ask_for(events(&[piece("Once"), end("stop")]) + &last).await;
        assert!(matches!(error, Some(BackendError::Malformed { .. })), "{count}: {error:?}");
    }
}

/// A body that sends `first` and then nothing, without ending.
fn stalled(first: String) -> Response {
    let body = stream::once(std::future::ready(Ok::<_, Infallible>(first))).chain(stream::pending());
    HttpBody::from_stream(body).into_response()
}

#[tokio::test]
async fn every_wait_has_a_deadline() {
    let hasty = async |first: String, deadlines: Deadlines| {
        let address = listen(move |_, _, _| stalled(first.clone())).await;
        let engine = connect_with(&format!("vllm={address}").parse().expect("a spec"), deadlines).expect("a client");
        ask(&*engine, request()).await
    };
    let timed_out = |stage| Some(BackendError::Timeout { stage, limit: SHORT });
    let first_byte = Deadlines { first_byte: SHORT, ..patient() };
    assert_eq!(hasty(String::new(), first_byte).await.1, timed_out(Stage::FirstByte));
    let (chunks, error) = hasty(events(&[piece("Once")]), Deadlines { between: SHORT, ..patient() }).await;
    assert_eq!((chunks.len(), error), (1, timed_out(Stage::NextChunk)));
    // The end was said; only its usage never comes.
    let (chunks, error) = hasty(events(&[piece("Once"), end("stop")]), Deadlines { between: SHORT, ..patient() }).await;
    assert_eq!((chunks.last().cloned(), error), (done(None, None, FinishReason::STOP), None));
    // Comments alone are no progress.
    let pings = |_: &str, _: &Value, _: &HeaderMap| {
        let pings = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(": ping\n\n"), ()))
        });
        HttpBody::from_stream(pings).into_response()
    };
    let address = listen(pings).await;
    let engine = connect_with(&format!("vllm={address}").parse().expect("a spec"), first_byte).expect("a client");
    assert_eq!(ask(&*engine, request()).await.1, timed_out(Stage::FirstByte));
}

/// Answers the first request of its first connection with `first`, closes, and answers every further one with `second`.
async fn closing(first: &'static str, second: String) -> (Box<dyn Backend>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address").to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let answer = if counter.fetch_add(1, Ordering::SeqCst) == 0 { first.to_owned() } else { second.clone() };
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (engine("llamacpp", &address), asked)
}

#[tokio::test]
async fn a_connection_closed_before_the_first_byte_is_tried_once_more() {
    let good = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", events(&[piece("Once"), end("stop"), usage(1, 1)]));
    let (engine, asked) = closing("", good.clone()).await;
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((text(&chunks).as_str(), error, asked.load(Ordering::SeqCst)), ("Once", None, 2));
    // Not for ever.
    let (engine, asked) = closing("", String::new()).await;
    let (_, error) = ask(&*engine, request()).await;
    assert!(matches!(error, Some(BackendError::Unreachable { .. })), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Not after it.
    let (engine, asked) = closing("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", good).await;
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((chunks.len(), error, asked.load(Ordering::SeqCst)), (0, Some(BackendError::Truncated), 1));
}

#[tokio::test]
async fn a_broken_connection_is_an_error_even_after_the_end_was_said() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"},\"finish_reason\":\"stop\"}]}\n\n";
    let (engine, _) = closing(answer, String::new()).await;
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((text(&chunks).as_str(), error), ("Once", Some(BackendError::Truncated)));
}

#[tokio::test]
async fn dropping_the_stream_stops_the_engine() {
    struct Tell(tokio::sync::mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let (sender, mut stopped) = tokio::sync::mpsc::channel(1);
    let engine = serve("vllm", move |_, _, _| {
        let body = stream::unfold(Tell(sender.clone()), |tell| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, Infallible>(events(&[piece("a")])), tell))
        });
        HttpBody::from_stream(body).into_response()
    })
    .await;
    let mut stream: BoxStream<'_, _> = engine.chat(request()).await.expect("starts");
    assert!(matches!(stream.next().await, Some(Ok(Chunk::Text { .. }))));
    assert!(stopped.try_recv().is_err(), "still running");
    drop(stream);
    tokio::time::timeout(PATIENCE, stopped.recv()).await.expect("the engine notices").expect("once");
}
