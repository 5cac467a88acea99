-- A cancel for whichever instance runs the job: told to it when it renews the job's lease.
alter table jobs add column cancel_wanted boolean not null default false;

-- What a grant is for counts once for each client; a deposit or a job is one client's alone.
alter table entries drop constraint entries_kind_reference_key;
create unique index entries_reference on entries (kind, reference) where kind <> 'grant';
create unique index entries_grant on entries (client, reference) where kind = 'grant';

-- A client's jobs of one status, the newest first.
create index jobs_client_status on jobs (client, status, created, id);
