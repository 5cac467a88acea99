//! An endpoint of a [`Cluster`]: JSON-RPC over HTTP on loopback, and what can be wrong with it.

use super::{Cluster, FINAL_DEPTH, Landed, State, SvmError, VALID_BLOCKS, blockhash};
use axum::{Json, Router, extract, routing::post};
use base64::{Engine, prelude::BASE64_STANDARD};
use infernet_node::settlement::solana::transaction::{Address, TxSignature};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::AbortHandle};

/// What is wrong with an endpoint; nothing to begin with.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// It takes transactions, and throws them away.
    pub drops: bool,
    /// It takes transactions, and passes them on when [`Cluster::release`] is called.
    pub holds: bool,
    /// It takes questions, and never answers.
    pub silent: bool,
    /// It knows no transaction, whatever is in the blocks.
    pub hides: bool,
    /// It says of any transaction that it is final, and did what it should.
    pub invents: bool,
    /// It tells heights that are so much too high, or too low.
    pub height: i64,
    /// Its blockhashes are of blocks so much older than it says.
    pub stale: u64,
    /// It says that it is of another cluster.
    pub genesis: Option<Address>,
}

/// An endpoint; dropping it ends it.
pub struct Node {
    faults: Arc<Mutex<Faults>>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    url: String,
    serving: AbortHandle,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Node {
    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How often it was asked that.
    pub fn asked(&self, method: &str) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(method).copied().unwrap_or_default()
    }

    /// What is wrong with it from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

#[derive(Clone)]
struct Endpoint {
    cluster: Cluster,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    faults: Arc<Mutex<Faults>>,
}

impl Cluster {
    /// A new endpoint on a free port of loopback.
    pub async fn node(&self) -> Result<Node, SvmError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let faults = Arc::new(Mutex::new(Faults::default()));
        let asked = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let endpoint = Endpoint { cluster: self.clone(), asked: asked.clone(), faults: faults.clone() };
        let app = Router::new().route("/", post(answer)).with_state(endpoint);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await }).abort_handle();
        Ok(Node { faults, asked, url, serving })
    }
}

async fn answer(extract::State(endpoint): extract::State<Endpoint>, Json(asked): Json<Value>) -> Json<Value> {
    let faults = endpoint.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if faults.silent {
        future::pending::<()>().await;
    }
    let method = asked.get("method").and_then(Value::as_str).unwrap_or_default();
    *endpoint.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(method.to_owned()).or_default() += 1;
    let params = asked.get("params").cloned().unwrap_or_default();
    let told = endpoint.cluster.lock().answer(&faults, method, &Params(params));
    Json(match told {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": asked.get("id"), "result": result }),
        Err((code, message)) => {
            json!({ "jsonrpc": "2.0", "id": asked.get("id"), "error": { "code": code, "message": message } })
        }
    })
}

struct Params(Value);

impl Params {
    fn text(&self, place: usize) -> Result<&str, Failure> {
        self.0.get(place).and_then(Value::as_str).ok_or((-32602, "Invalid params".into()))
    }

    fn address(&self, place: usize) -> Result<Address, Failure> {
        self.text(place)?.parse().map_err(|error| (-32602, format!("Invalid param: {error}")))
    }

    fn option(&self, place: usize, name: &str) -> Option<&Value> {
        self.0.get(place)?.get(name)
    }

    /// As on real nodes, finalized unless said.
    fn commitment(&self, place: usize) -> &str {
        self.option(place, "commitment").and_then(Value::as_str).unwrap_or("finalized")
    }
}

/// A code of JSON-RPC, and words.
type Failure = (i64, String);

impl State {
    fn answer(&mut self, faults: &Faults, method: &str, params: &Params) -> Result<Value, Failure> {
        match method {
            "getHealth" => Ok(json!("ok")),
            "getGenesisHash" => Ok(json!(faults.genesis.unwrap_or(Address(blockhash(0))).to_string())),
            "getBlockHeight" => Ok(json!(self.at(params.commitment(0)).saturating_add_signed(faults.height))),
            "getLatestBlockhash" => Ok(self.latest(faults, params)),
            "sendTransaction" => self.take(faults, params),
            "getSignatureStatuses" => self.statuses(faults, params),
            "getTransaction" => self.transaction(faults, params),
            "getBalance" => self.balance(params),
            "getTokenAccountBalance" => self.token_balance(params),
            "getAccountInfo" => self.account(params),
            "requestAirdrop" => self.drop_from_the_air(params),
            _ => Err((-32601, format!("Method not found: {method}"))),
        }
    }

    fn with_context(&self, value: Value) -> Value {
        json!({ "context": { "slot": Self::slot(self.height) }, "value": value })
    }

    fn latest(&self, faults: &Faults, params: &Params) -> Value {
        let height = self.at(params.commitment(0));
        let hash = Address(blockhash(height.saturating_sub(faults.stale)));
        let last_valid = (height + VALID_BLOCKS).saturating_add_signed(faults.height);
        self.with_context(json!({ "blockhash": hash.to_string(), "lastValidBlockHeight": last_valid }))
    }

    fn take(&mut self, faults: &Faults, params: &Params) -> Result<Value, Failure> {
        let raw = BASE64_STANDARD.decode(params.text(0)?).map_err(|_| (-32602, "invalid base64 encoding".to_owned()))?;
        if faults.drops || faults.holds {
            let transaction = self.checked(&raw).map_err(|message| (-32002, message))?;
            if faults.holds {
                self.held.push(raw);
            }
            let signature = transaction.signatures.first().map(ToString::to_string);
            return Ok(json!(signature));
        }
        let skips = params.option(1, "skipPreflight").and_then(Value::as_bool).unwrap_or(false);
        let landed = if skips { self.checked(&raw).and_then(|read| self.execute(&raw, read)) } else { self.land(&raw) };
        landed.map(|signature| json!(signature.to_string())).map_err(|message| (-32002, message))
    }

    fn find(&self, faults: &Faults, signature: &str) -> Option<&Landed> {
        let signature: TxSignature = signature.parse().ok()?;
        self.landed.iter().find(|landed| landed.signature == signature && !faults.hides)
    }

    fn statuses(&self, faults: &Faults, params: &Params) -> Result<Value, Failure> {
        let asked = params.0.get(0).and_then(Value::as_array).ok_or((-32602, "Invalid params".to_owned()))?;
        let status = |signature: &Value| match self.find(faults, signature.as_str().unwrap_or_default()) {
            Some(landed) => self.status(landed, faults),
            None if faults.invents => {
                json!({ "slot": Self::slot(self.height), "confirmations": null, "err": null, "confirmationStatus": "finalized" })
            }
            None => Value::Null,
        };
        Ok(self.with_context(asked.iter().map(status).collect()))
    }

    fn status(&self, landed: &Landed, faults: &Faults) -> Value {
        let depth = if faults.invents { FINAL_DEPTH } else { self.height - landed.height };
        let (confirmations, name) = match depth {
            0 => (json!(0), "processed"),
            1..FINAL_DEPTH => (json!(depth), "confirmed"),
            _ => (Value::Null, "finalized"),
        };
        let slot = Self::slot(landed.height);
        json!({ "slot": slot, "confirmations": confirmations, "err": landed.error, "confirmationStatus": name })
    }

    fn transaction(&self, faults: &Faults, params: &Params) -> Result<Value, Failure> {
        let Some(landed) = self.find(faults, params.text(0)?) else { return Ok(Value::Null) };
        if landed.height > self.at(params.commitment(1)) && !faults.invents {
            return Ok(Value::Null);
        }
        let meta = json!({ "err": landed.error, "fee": landed.fee, "computeUnitsConsumed": landed.units });
        let raw = BASE64_STANDARD.encode(&landed.raw);
        Ok(json!({ "slot": Self::slot(landed.height), "blockTime": null, "meta": meta, "transaction": [raw, "base64"] }))
    }

    fn balance(&self, params: &Params) -> Result<Value, Failure> {
        let key = solana_sdk::pubkey::Pubkey::new_from_array(params.address(0)?.0);
        Ok(self.with_context(json!(self.svm.get_balance(&key).unwrap_or_default())))
    }

    fn token_balance(&self, params: &Params) -> Result<Value, Failure> {
        let held = self.held_by(&params.address(0)?).ok_or((-32602, "Invalid param: could not find account".to_owned()))?;
        Ok(self.with_context(json!({ "amount": held.to_string() })))
    }

    fn account(&self, params: &Params) -> Result<Value, Failure> {
        let account = self.svm.get_account(&solana_sdk::pubkey::Pubkey::new_from_array(params.address(0)?.0));
        let shown = account.map(|account| {
            let data = json!([BASE64_STANDARD.encode(&account.data), "base64"]);
            json!({ "lamports": account.lamports, "owner": account.owner.to_string(), "executable": account.executable, "data": data })
        });
        Ok(self.with_context(shown.unwrap_or_default()))
    }

    fn drop_from_the_air(&mut self, params: &Params) -> Result<Value, Failure> {
        let key = solana_sdk::pubkey::Pubkey::new_from_array(params.address(0)?.0);
        let lamports = params.0.get(1).and_then(Value::as_u64).ok_or((-32602, "Invalid params".to_owned()))?;
        let dropped = self.svm.airdrop(&key, lamports).map_err(|failed| (-32603, failed.err.to_string()))?;
        Ok(json!(dropped.signature.to_string()))
    }
}
