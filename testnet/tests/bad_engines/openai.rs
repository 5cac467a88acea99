//! The same in OpenAI's dialect, where more can go wrong.

use super::{Act, Dialect, Network, Seen, words};

async fn check(script: Vec<Act>) -> Seen {
    Network::start(Dialect::OpenAi, script).await.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_an_answer_is_a_clean_failure() {
    check(vec![Act::Hang]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Drip(b": ping\n\n")]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Raw(b"<html>no /secret/ engine</html>\n")]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Raw(b"data: [DONE]\n\n")]).await.is_a_clean_failure();
    check(vec![Act::Cut]).await.is_a_clean_failure();
    check(vec![Act::Status("500 Internal Server Error", "no /secret/ path")]).await.is_a_clean_failure();
    check(vec![Act::Status("401 Unauthorized", "{\"error\":\"no /secret/ key\"}")]).await.is_a_clean_failure();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_paid_for_what_came() {
    let then = |last: Act| words(3).into_iter().chain([last]).collect::<Vec<_>>();
    for last in [
        Act::Hang,
        Act::Cut,
        Act::End,
        // The end of an answer that its server has broken off.
        Act::Raw(b"data: [DONE]\n\n"),
        Act::Raw(b"data: {\"error\":{\"message\":\"no /secret/ path\"}}\n\n"),
        Act::Raw(b"event: error\ndata: no /secret/ path\n\n"),
        Act::Raw(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n"),
        Act::Raw(b"data: {\"choi"),
        Act::Raw(b"this is no event\n"),
        Act::Drip(b": ping\n\n"),
        Act::Flood,
    ] {
        check(then(last)).await.is_a_partial_answer(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_lies_about_usage_charges_no_more_than_was_delivered() {
    let lying = |counts: &'static str| words(4).into_iter().chain([Act::done(counts), Act::End]).collect::<Vec<_>>();
    check(lying(r#""completion_tokens":4294967295,"prompt_tokens":4294967295"#)).await.is_whole(4);
    check(lying(r#""completion_tokens":2,"prompt_tokens":0"#)).await.is_whole(2);
    check(lying(r#""total_tokens":1"#)).await.is_whole(4);
}
