--
-- Views of applications and what may be done to them with bad intent.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir '/sql/common.psql'
\i :common

CREATE SCHEMA regress_abuse;
GRANT USAGE ON SCHEMA regress_abuse TO PUBLIC;
CREATE ROLE regress_abuse_client;
CREATE ROLE regress_abuse_service;
SELECT run_tracker.grant_client('regress_abuse_client');
SELECT run_tracker.grant_service('regress_abuse_service');
SELECT count(run_tracker.create_compat(a, 'regress_abuse')) FROM unnest('{spar,iflow,spark}'::text[]) a;
SET search_path = regress_abuse;
\set as_alice 'SET ROLE regress_abuse_client; SET request.jwt.claims = ''{"sub": "a0000000-0000-4000-8000-00000000000a"}'';'
\set as_mallory 'SET ROLE regress_abuse_client; SET request.jwt.claims = ''{"sub": "e0000000-0000-4000-8000-00000000000e"}'';'
\set as_service 'SET ROLE regress_abuse_service; RESET request.jwt.claims;'
\set as_owner 'RESET ROLE; RESET request.jwt.claims;'

-- ids of what belongs to runs are unique there only: who takes those of others gets nobody's rows deleted but his own
:as_alice
INSERT INTO iflow_jobs (job_id) VALUES ('00000000-0000-4000-8000-0000000000a1');
INSERT INTO iflow_components (job_id, component_id, component_type) VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000c1', 'alice');
INSERT INTO rag_retrievals (job_id, retrieval_id, retrieval_type) VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000c1', 'alice');
INSERT INTO iflow_generation_logs (job_id, log_id, log_level, log_message) VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000c1', 'INFO', 'alice');
INSERT INTO spark_files (run_id, id, name) VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000c2', 'alice');
:as_mallory
INSERT INTO iflow_jobs (job_id) VALUES ('00000000-0000-4000-8000-0000000000e1');
INSERT INTO iflow_components (job_id, component_id, component_type) VALUES ('00000000-0000-4000-8000-0000000000e1', '00000000-0000-4000-8000-0000000000c1', 'mallory');
INSERT INTO rag_retrievals (job_id, retrieval_id, retrieval_type) VALUES ('00000000-0000-4000-8000-0000000000e1', '00000000-0000-4000-8000-0000000000c1', 'mallory');
INSERT INTO iflow_generation_logs (job_id, log_id, log_level, log_message) VALUES ('00000000-0000-4000-8000-0000000000e1', '00000000-0000-4000-8000-0000000000c1', 'INFO', 'mallory');
INSERT INTO spark_files (run_id, id, name) VALUES ('00000000-0000-4000-8000-0000000000e1', '00000000-0000-4000-8000-0000000000c2', 'mallory');
:as_service
-- one of them has to go first
CALL pg_temp.try($$INSERT INTO iflow_components (job_id, component_id, component_type) VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000c1', 'x')
                   ON CONFLICT (component_id) DO UPDATE SET component_name = 'x'$$);
DELETE FROM iflow_components WHERE component_type = 'mallory' RETURNING component_type;
DELETE FROM rag_retrievals WHERE retrieval_type = 'mallory' RETURNING retrieval_type;
DELETE FROM iflow_generation_logs WHERE log_message = 'mallory' RETURNING log_message;
DELETE FROM spark_files WHERE name = 'mallory' RETURNING name;
SELECT component_type FROM iflow_components;
SELECT retrieval_type FROM rag_retrievals;
SELECT log_message FROM iflow_generation_logs;
SELECT name FROM spark_files;

-- names of schemas that would be taken for code
:as_owner
CREATE SCHEMA "'@schema@'";
CREATE SCHEMA "@schema_text@";
CALL pg_temp.try($$SELECT run_tracker.create_compat('spark', '"''@schema@''"')$$);
CALL pg_temp.try($$SELECT run_tracker.create_compat('spark', '"@schema_text@"')$$);
DROP SCHEMA "'@schema@'", "@schema_text@";

-- calls without a trigger
:as_mallory
CALL pg_temp.try($$SELECT run_tracker.resolve_conflict(0, ROW(1))$$);
CALL pg_temp.try($$SELECT run_tracker.resolve_conflict('pg_class', ROW(1))$$);
CALL pg_temp.try($$SELECT run_tracker.resolve_conflict('spar_runs', ROW(1))$$);

-- as long as can be
:as_service
INSERT INTO spar_runs (status, created_at, started_at, completed_at) VALUES ('completed', '4713-01-01 BC', '4713-01-01 BC', '294276-01-01')
RETURNING processing_duration_ms;

:as_owner
CALL pg_temp.forget();
RESET search_path;
SELECT count(run_tracker.drop_compat(a, 'regress_abuse')) FROM unnest('{spar,iflow,spark}'::text[]) a;
DROP SCHEMA regress_abuse;
DROP OWNED BY regress_abuse_client, regress_abuse_service;
DROP ROLE regress_abuse_client, regress_abuse_service;
