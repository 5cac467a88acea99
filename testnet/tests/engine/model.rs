//! The model without a server.

use infernet_testnet::engine::{EngineError, Finish, Sampling, TinyModel};

#[test]
fn hot_text_is_whole_characters_and_adds_up() {
    let model = TinyModel::load().expect("the embedded model loads");
    let prompt = model.encode("Repeat: é→🦊").expect("encodes");
    for seed in 0..8 {
        // So hot that tokens are nearly uniform: stray bytes, halves of characters, everything.
        let sampling = Sampling { temperature: 50.0, top_p: 1.0, top_k: 0, seed, ..Sampling::greedy(64) };
        let mut said = String::new();
        let answer = model.generate(&prompt, &sampling, || false, |t| said.push_str(&t.text)).expect("generates");
        assert!(answer.eval_count <= 64);
        assert!(!said.is_empty());
    }
}

#[test]
fn cancelled_before_it_begins_generates_nothing() {
    let model = TinyModel::load().expect("the embedded model loads");
    let prompt = model.encode("Hello").expect("encodes");
    let answer = model.generate(&prompt, &Sampling::greedy(8), || true, |_| ()).expect("generates");
    assert_eq!((answer.finish, answer.eval_count), (Finish::Cancelled, 0));
}

#[test]
fn prompt_that_fills_the_window_is_an_error() {
    let model = TinyModel::load().expect("the embedded model loads");
    let generate = |tokens: &[u32]| model.generate(tokens, &Sampling::greedy(1), || false, |_| ());
    assert!(matches!(generate(&[]), Err(EngineError::EmptyPrompt)));
    let tokens = vec![5; TinyModel::CONTEXT];
    assert!(matches!(generate(&tokens), Err(EngineError::PromptTooLong { tokens: 1024, context: 1024 })));
}

#[test]
fn full_window_ends_the_answer_with_length() {
    let model = TinyModel::load().expect("the embedded model loads");
    let prompt = vec![300; TinyModel::CONTEXT - 3];
    let sampling = Sampling { max_tokens: None, ..Sampling::greedy(0) };
    let answer = model.generate(&prompt, &sampling, || false, |_| ()).expect("generates");
    assert!(answer.eval_count <= 3, "{}", answer.eval_count);
}
