\set ECHO queries
CREATE TABLE journal_entries (entry_id text PRIMARY KEY, body text, ai_analysis jsonb);
INSERT INTO journal_entries VALUES ('entry-7', 'Dear diary');
CREATE FUNCTION write_analysis(run jsonb) RETURNS void LANGUAGE sql AS
$$ UPDATE journal_entries SET ai_analysis = run -> 'result' WHERE entry_id = run ->> 'subject_id' $$;
SELECT run_tracker.on_finish('journal', 'write_analysis(jsonb)');
SELECT run_tracker.create_run('77777777-7777-4777-8777-777777777777', kind => 'journal', lifecycle => 'spar',
                              user_id => 'alice', subject_id => 'entry-7');
\set ECHO none
CREATE ROLE demo_automation LOGIN PASSWORD :'password';
\set ECHO queries
SELECT run_tracker.grant_callback('demo_automation');
SELECT secret FROM run_tracker.create_callback_key('automation', 'secret', secret => 'the secret of the demo');
SET ROLE demo_automation;
SELECT run_tracker.callback_secret('{"runId": "77777777-7777-4777-8777-777777777777", "status": "completed",
                                     "results": {"quality_score": 8, "insights": ["calm"]}}', 'the secret of the demo');
RESET ROLE;
SELECT entry_id, ai_analysis FROM journal_entries;
DO $$
BEGIN
    IF (SELECT ai_analysis ->> 'quality_score' FROM journal_entries) IS DISTINCT FROM '8' THEN
        RAISE EXCEPTION 'the analysis was not written back';
    END IF;
END
$$;
