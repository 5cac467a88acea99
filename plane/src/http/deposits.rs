//! Where to deposit and what came; how the plane's own account is, for who runs it.

use super::{
    caller::Caller,
    error::{ErrorBody, Refusal},
};
use crate::{
    accounts::{Scope, wallet::iso},
    cashier::{Cashier, State as CashierState, Sweep},
    state::Plane,
    store::DepositRow,
};
use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;
use utoipa::ToSchema;

/// Deposits that are shown, the newest: older ones are among the entries.
pub(super) const PAGE: usize = 100;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new().route("/api/v1/user/deposits", get(deposits)).route("/api/v1/admin/chain", get(chain))
}

/// Where to deposit.
#[derive(Serialize, ToSchema)]
pub struct DepositTo {
    /// To which address.
    pub address: String,
    /// On which EVM chain.
    pub chain: u64,
    /// Of which token: its contract. One unit is a micro-USD.
    pub token: String,
    /// Blocks that bury a transfer before it counts.
    pub depth: u64,
}

impl From<&Cashier> for DepositTo {
    fn from(cashier: &Cashier) -> Self {
        let config = cashier.config();
        DepositTo {
            address: cashier.address().to_string(),
            chain: config.chain,
            token: config.token.to_string(),
            depth: config.depth,
        }
    }
}

/// A deposit that was credited.
#[derive(Serialize, ToSchema)]
pub struct DepositView {
    /// On which chain.
    pub chain: u64,
    /// By which transaction.
    pub transaction: String,
    /// Its place among the logs of its block.
    pub log_index: u64,
    /// In which block.
    pub block: u64,
    /// From which wallet.
    pub from: String,
    /// How much, in micro-USD.
    pub amount_micro_usd: u64,
    /// When it was credited, RFC 3339.
    pub credited_at: Option<String>,
}

impl From<DepositRow> for DepositView {
    fn from(row: DepositRow) -> Self {
        DepositView {
            chain: row.chain,
            transaction: format!("0x{}", hex::encode(row.tx.as_bytes())),
            log_index: row.log,
            block: row.block,
            from: row.from.to_string(),
            amount_micro_usd: row.amount.0,
            credited_at: row.credited.map(iso),
        }
    }
}

/// Where to deposit, and what came.
#[derive(Serialize, ToSchema)]
pub struct DepositList {
    /// Where to; none on a plane without a chain, and until it has read that for the first time.
    pub deposit_to: Option<DepositTo>,
    /// The last 100 that were credited, the newest first.
    pub deposits: Vec<DepositView>,
}

/// A transfer from the plane's account to its operator's cold one.
#[derive(Serialize, ToSchema)]
pub struct SweepView {
    /// Its place among all.
    pub number: u64,
    /// When it was decided, RFC 3339.
    pub at: String,
    /// To where.
    pub to: String,
    /// How much, in micro-USD.
    pub amount_micro_usd: u64,
    /// `prepared`, `sent`, `mined`, `settled`, `failed` or `replaced`.
    pub stage: &'static str,
    /// Its newest transaction.
    pub transaction: Option<String>,
}

impl From<Sweep> for SweepView {
    fn from(sweep: Sweep) -> Self {
        SweepView {
            number: sweep.number,
            at: iso(sweep.at),
            to: sweep.to.to_string(),
            amount_micro_usd: sweep.amount.0,
            stage: sweep.stage,
            transaction: sweep.tx,
        }
    }
}

/// How the plane's account on a chain is.
#[derive(Serialize, ToSchema)]
pub struct ChainView {
    /// Where clients deposit.
    #[serde(flatten)]
    pub deposit_to: DepositTo,
    /// `starting`, `following` or `failing`.
    pub state: CashierState,
    /// Why it fails.
    pub reason: Option<String>,
    /// When all was last well, RFC 3339.
    pub well_at: Option<String>,
    /// The newest block.
    pub head: Option<u64>,
    /// The last block whose transfers are kept.
    pub read: Option<u64>,
    /// Deposits of wallets that nobody signs in by.
    pub unclaimed: u64,
    /// And how much, in micro-USD.
    pub unclaimed_micro_usd: u64,
    /// What the account has of the token, in micro-USD.
    pub hot_micro_usd: Option<u64>,
    /// What stays there at most.
    pub hot_cap_micro_usd: Option<u64>,
    /// Where the rest goes.
    pub cold: Option<String>,
    /// The newest sweep.
    pub sweep: Option<SweepView>,
    /// Why nothing can be swept now.
    pub sweep_reason: Option<String>,
}

impl From<&Cashier> for ChainView {
    fn from(cashier: &Cashier) -> Self {
        let (report, cold) = (cashier.report(), cashier.config().cold);
        ChainView {
            deposit_to: DepositTo::from(cashier),
            state: report.state,
            reason: report.reason,
            well_at: report.well.map(iso),
            head: report.head,
            read: report.read,
            unclaimed: report.unclaimed,
            unclaimed_micro_usd: report.unclaimed_amount.0,
            hot_micro_usd: report.hot.map(|hot| hot.0),
            hot_cap_micro_usd: cold.map(|(_, cap)| cap.0),
            cold: cold.map(|(cold, _)| cold.to_string()),
            sweep: report.sweep.map(SweepView::from),
            sweep_reason: report.sweep_reason,
        }
    }
}

/// Where I can deposit, and what came. From a wallet by which I sign in: another's waits until I do.
#[utoipa::path(get, path = "/api/v1/user/deposits", tag = "clients",
    responses((status = 200, body = DepositList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn deposits(State(plane): State<Plane>, caller: Caller) -> Result<Json<DepositList>, Refusal> {
    caller.needs(Scope::Manage)?;
    let rows = plane.store.deposits(caller.client(), PAGE).await?;
    let deposit_to = plane.cashier.as_ref().filter(|cashier| cashier.is_open()).map(DepositTo::from);
    Ok(Json(DepositList { deposit_to, deposits: rows.into_iter().map(DepositView::from).collect() }))
}

/// How the plane's account on a chain is. For who runs the plane.
#[utoipa::path(get, path = "/api/v1/admin/chain", tag = "admin",
    responses((status = 200, body = ChainView), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn chain(State(plane): State<Plane>, caller: Caller) -> Result<Json<ChainView>, Refusal> {
    caller.needs_admin()?;
    let cashier = plane.cashier.as_ref().ok_or_else(|| Refusal::not_found("chain"))?;
    Ok(Json(ChainView::from(cashier)))
}
