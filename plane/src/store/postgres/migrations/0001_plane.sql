-- What a plane remembers. Times are unix milliseconds, money is micro-USD, hashes and keys are bytes.

create table meta (
    name text primary key,
    value text not null
);

create table receipts (
    job bytea not null,
    worker bytea not null,
    buyer bytea not null,
    position bigint not null unique,
    finished bigint not null,
    countersigned boolean not null,
    -- Both statements as they were signed: what is verified again at each read.
    signed bytea not null,
    primary key (job, worker)
);

create table nodes (
    pubkey bytea not null,
    -- 0 provider, 1 aggregator, 2 client
    role smallint not null check (role between 0 and 2),
    id text not null,
    node_id text not null,
    name text not null,
    address text not null,
    port integer not null check (port between 0 and 65535),
    available boolean not null,
    specs json not null,
    public boolean not null,
    names_audience boolean not null,
    registered bigint not null,
    seen bigint not null,
    primary key (pubkey, role)
);
create index nodes_seen on nodes (seen);

-- Which key a node_id belongs to.
create table node_names (
    node_id text primary key,
    pubkey bytea not null
);

create table nonces (
    pubkey bytea not null,
    nonce bytea not null,
    until bigint not null,
    primary key (pubkey, nonce)
);
create index nonces_until on nonces (until);

create table payouts (
    pubkey bytea not null,
    coin text not null,
    network text not null,
    address text not null,
    set_at bigint not null,
    primary key (pubkey, coin, network)
);

create table jobs (
    id text collate "C" primary key,
    client text not null,
    model text not null,
    status text not null check (status in ('pending', 'assigned', 'running', 'completed', 'failed', 'cancelled')),
    created bigint not null,
    updated bigint not null,
    started bigint,
    ended bigint,
    worker bytea,
    legacy bytea,
    input_tokens bigint,
    output_tokens bigint,
    budget bigint not null,
    cost bigint,
    ttft_ms bigint,
    receipt bytea,
    error_code text,
    error_message text,
    idempotency_key text,
    idempotency_request bytea,
    kept_request bytea,
    kept_answer bytea,
    lease_by text,
    lease_until bigint
);
create unique index jobs_idempotency on jobs (client, idempotency_key) where idempotency_key is not null;
create index jobs_client on jobs (client, created, id);
create index jobs_legacy on jobs (legacy, created, id) where legacy is not null;
create index jobs_status on jobs (status, created, id);
create index jobs_created on jobs (created, id);
create index jobs_lease on jobs (lease_until, id) where status in ('pending', 'assigned', 'running');

create table clients (
    id text primary key,
    name text not null,
    created bigint not null,
    balance bigint not null default 0 check (balance >= 0),
    reserved bigint not null default 0 check (reserved between 0 and balance),
    admin boolean not null
);

create table identities (
    kind text not null,
    subject text not null,
    data text not null,
    client text not null references clients (id),
    label text not null,
    added bigint not null,
    primary key (kind, subject)
);
create index identities_client on identities (client, added);

create table api_keys (
    hash bytea primary key,
    prefix text not null,
    client text not null references clients (id),
    name text not null,
    scopes text[] not null,
    per_day bigint,
    per_minute bigint not null,
    created bigint not null,
    expires bigint,
    used bigint,
    revoked bigint
);
create index api_keys_client on api_keys (client, created);

create table sessions (
    hash bytea primary key,
    client text not null references clients (id),
    until bigint not null
);
create index sessions_until on sessions (until);

create table challenges (
    id text primary key,
    data text not null,
    until bigint not null
);
create index challenges_until on challenges (until);

-- Requests a minute, by one moment: when all turns are there again, in unix microseconds.
create table turns (
    who text primary key,
    full_at bigint not null
);
create index turns_full on turns (full_at);

create table reservations (
    job text primary key,
    client text not null references clients (id),
    key bytea,
    day bigint not null,
    most bigint not null check (most >= 0),
    settled boolean not null default false
);

create table key_days (
    key bytea not null,
    day bigint not null,
    used bigint not null check (used >= 0),
    primary key (key, day)
);

create table entries (
    client text not null references clients (id),
    number bigint not null,
    kind text not null check (kind in ('grant', 'deposit', 'job', 'withdrawal')),
    amount bigint not null,
    reference text not null,
    key bytea,
    at bigint not null,
    primary key (client, number),
    unique (kind, reference)
);

create table commands (
    id text collate "C" primary key,
    node bytea not null,
    verb text not null,
    args json not null,
    signed bytea,
    operator bytea,
    status text not null check (status in ('pending', 'running', 'completed', 'failed', 'cancelled', 'expired')),
    progress json,
    result json,
    error text,
    issued bigint not null,
    expires bigint not null,
    started bigint,
    lease bigint,
    ended bigint
);
create index commands_node on commands (node, issued, id);
create index commands_open on commands (node, issued, id) where status in ('pending', 'running');
