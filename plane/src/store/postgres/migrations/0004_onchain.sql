-- What a chain has brought: a transfer counts once. Without a client it is nobody's yet.
create table deposits (
    chain bigint not null,
    tx bytea not null,
    log bigint not null,
    token bytea not null,
    account bytea not null,
    sender text not null,
    amount bigint not null check (amount > 0),
    block bigint not null,
    client text references clients (id),
    credited bigint,
    primary key (chain, tx, log)
);
create index deposits_unclaimed on deposits (sender) where client is null;
create index deposits_client on deposits (client, credited) where client is not null;

-- How far a chain was read, for each account and token.
create table block_marks (
    source text primary key,
    next bigint not null
);

-- What the plane has sent on a chain, kept before it is sent.
create table payments (
    account text not null,
    number bigint not null check (number > 0),
    revision bigint not null,
    at bigint not null,
    step bytea not null,
    primary key (account, number)
);
