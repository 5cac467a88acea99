//! Which page an address means. The same for the page and for what is live of it.

use super::{Ask, Part, account, jobs, market, money, nodes, receipts};
use crate::{
    http::{caller::Somebody, error::Refusal, jobs as api},
    store::{JobStatus, WebJobId},
};
use infernet_wire::id::{self, JobId, NodeId};

/// Addresses of pages, as the router takes them.
pub(super) const ROUTES: [&str; 13] = [
    "/",
    "/nodes",
    "/nodes/{id}",
    "/models",
    "/jobs",
    "/jobs/{id}",
    "/chat",
    "/receipts",
    "/receipts/{id}",
    "/money",
    "/keys",
    "/settings",
    "/signin",
];

/// A page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum View {
    Overview,
    Nodes { offline: bool, after: Option<NodeId> },
    Node(NodeId),
    Models,
    Jobs { status: Option<JobStatus>, before: Option<String> },
    Job(WebJobId),
    Chat { model: Option<String> },
    Receipts { worker: Option<NodeId> },
    Receipt(Digest),
    Money { before: Option<u64> },
    Keys,
    Settings,
    SignIn { next: String },
}

/// By what a receipt is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Digest {
    /// Of the worker's statement.
    Of(id::Hash),
    /// The job's.
    Job(JobId),
}

impl View {
    /// The page at `path`, with `query`; `None` if there is none.
    pub(super) fn parse(path: &str, query: &str) -> Option<Self> {
        let named =
            |wanted: &str| api::pairs(query).find(|(name, value)| *name == wanted && !value.is_empty()).map(|(_, value)| value);
        let mut steps = path.trim_matches('/').splitn(2, '/');
        let (first, rest) = (steps.next().unwrap_or_default(), steps.next());
        Some(match (first, rest) {
            ("", None) => View::Overview,
            ("nodes", None) => View::Nodes { offline: named("offline").is_some(), after: parsed(named("after"))? },
            ("nodes", Some(id)) => View::Node(id.parse().ok()?),
            ("models", None) => View::Models,
            ("jobs", None) => View::Jobs { status: status(named("status"))?, before: named("before") },
            ("jobs", Some(id)) => View::Job(WebJobId(Some(id).filter(|id| api::is_id(id))?.to_owned())),
            ("chat", None) => View::Chat { model: named("model") },
            ("receipts", None) => match named("find") {
                Some(id) => View::Receipt(digest(id.trim())?),
                None => View::Receipts { worker: parsed(named("worker"))? },
            },
            ("receipts", Some(id)) => View::Receipt(digest(id)?),
            ("money", None) => View::Money { before: parsed(named("before"))? },
            ("keys", None) => View::Keys,
            ("settings", None) => View::Settings,
            ("signin", None) => View::SignIn { next: own_page(named("next")) },
            _ => return None,
        })
    }

    /// Whether it is somebody's own.
    pub(super) fn is_private(&self) -> bool {
        matches!(self, View::Jobs { .. } | View::Job(_) | View::Money { .. } | View::Keys | View::Settings)
    }

    /// Whether it has live parts: forms, and what is signed, stay as they are.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self, View::Chat { .. } | View::Receipt(_) | View::Settings | View::SignIn { .. })
    }

    /// Whether it is one of the few whose address holds nothing that a viewer makes up.
    pub(super) fn is_first(&self) -> bool {
        matches!(self, View::Overview | View::Nodes { after: None, .. } | View::Models | View::Receipts { worker: None })
    }

    /// Whether its live parts are the same whoever looks: an owner sees more of a node.
    pub(super) fn is_same_for(&self, somebody: Option<&Somebody>) -> bool {
        match self {
            View::Overview | View::Nodes { .. } | View::Models | View::Receipts { .. } => true,
            View::Node(_) => somebody.is_none(),
            _ => false,
        }
    }

    /// Its title.
    pub(super) fn title(&self) -> String {
        match self {
            View::Overview => "Network".into(),
            View::Nodes { .. } => "Nodes".into(),
            View::Node(id) => format!("Node {}", id.short()),
            View::Models => "Models".into(),
            View::Jobs { .. } => "Jobs".into(),
            View::Job(id) => format!("Job {}", id.0.get(4..12).unwrap_or_default()),
            View::Chat { .. } => "Chat".into(),
            View::Receipts { .. } => "Receipts".into(),
            View::Receipt(_) => "Receipt".into(),
            View::Money { .. } => "Money".into(),
            View::Keys => "API keys".into(),
            View::Settings => "Settings".into(),
            View::SignIn { .. } => "Sign in".into(),
        }
    }

    /// Its parts, as of `ask.now`.
    pub(super) async fn parts(&self, ask: &Ask<'_>) -> Result<Vec<Part>, Refusal> {
        match self {
            View::Overview => Ok(market::overview(ask)),
            View::Nodes { offline, after } => Ok(nodes::list(ask, *offline, after.as_ref())),
            View::Node(id) => nodes::one(ask, id).await,
            View::Models => Ok(market::models(ask)),
            View::Jobs { status, before } => jobs::list(ask, *status, before.as_deref()).await,
            View::Job(id) => jobs::one(ask, id).await,
            View::Chat { model } => Ok(jobs::chat(ask, model.as_deref())),
            View::Receipts { worker } => Ok(receipts::list(ask, worker.as_ref())),
            View::Receipt(digest) => receipts::one(ask, *digest).await,
            View::Money { before } => money::page(ask, *before).await,
            View::Keys => account::keys(ask).await,
            View::Settings => account::settings(ask).await,
            View::SignIn { next } => Ok(account::sign_in(ask, next)),
        }
    }
}

/// `Some(None)` if nothing is named, `None` if it is nonsense.
fn parsed<T: std::str::FromStr>(text: Option<String>) -> Option<Option<T>> {
    match text {
        Some(text) => text.parse().ok().map(Some),
        None => Some(None),
    }
}

fn status(text: Option<String>) -> Option<Option<JobStatus>> {
    match text {
        Some(text) => serde_json::from_value(text.into()).ok().map(Some),
        None => Some(None),
    }
}

fn digest(text: &str) -> Option<Digest> {
    text.parse().map(Digest::Of).or_else(|_| text.parse().map(Digest::Job)).ok()
}

/// Where to go after signing in: a page of ours, never an address that somebody else put into a link.
fn own_page(next: Option<String>) -> String {
    let is_own = |next: &String| next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\n', '\r', '\t']);
    next.filter(is_own).unwrap_or_else(|| "/".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_pages_and_nonsense_none() {
        let id = "16Uiu2HAkJy3EoQ9Ctt6n7veDcR2bXYZYDrCZ2R2KBAP8CJzugVZR";
        assert_eq!(View::parse("/", ""), Some(View::Overview));
        assert_eq!(View::parse(&format!("/nodes/{id}"), ""), Some(View::Node(id.parse().unwrap())));
        assert_eq!(View::parse("/jobs", "status=failed"), Some(View::Jobs { status: Some(JobStatus::Failed), before: None }));
        assert_eq!(
            View::parse("/jobs", "status="),
            Some(View::Jobs { status: None, before: None }),
            "an empty field of a form"
        );
        let digest = "ab".repeat(32);
        assert_eq!(View::parse("/receipts", &format!("find=+{digest}+")), View::parse(&format!("/receipts/{digest}"), ""));
        for (path, query) in [
            ("/nodes/x", ""),
            ("/jobs", "status=odd"),
            ("/jobs/job_1", ""),
            ("/receipts/1", ""),
            ("/money", "before=x"),
            ("/x", ""),
        ] {
            assert_eq!(View::parse(path, query), None, "{path}?{query}");
        }
    }

    #[test]
    fn a_sign_in_leads_to_a_page_of_ours_alone() {
        let next = |query: &str| match View::parse("/signin", query) {
            Some(View::SignIn { next }) => next,
            other => format!("{other:?}"),
        };
        assert_eq!(next("next=%2Fjobs%3Fstatus%3Dfailed"), "/jobs?status=failed");
        for evil in
            ["", "next=https%3A%2F%2Fevil.example", "next=%2F%2Fevil.example", "next=%2F%5Cevil.example", "next=%2F%09%2Fevil"]
        {
            assert_eq!(next(evil), "/", "{evil}");
        }
    }

    #[test]
    fn every_route_is_a_page() {
        let id = "16Uiu2HAkJy3EoQ9Ctt6n7veDcR2bXYZYDrCZ2R2KBAP8CJzugVZR";
        for route in ROUTES {
            let id = match route {
                "/jobs/{id}" => format!("job_{}", "0".repeat(32)),
                "/receipts/{id}" => "0".repeat(64),
                _ => id.to_owned(),
            };
            assert!(View::parse(&route.replace("{id}", &id), "").is_some(), "{route}");
        }
    }
}
