\set n :n + 1
\set tokens random(100, 2000)
SELECT run_tracker.complete_task(md5(:client_id || '/' || :n)::uuid, 'page text', input_tokens => :tokens,
                                 output_tokens => :tokens / 10, cost => :tokens * 0.000003);
