CREATE EXTENSION run_tracker;
\set ECHO none
CREATE ROLE demo_app LOGIN PASSWORD :'password';
CREATE ROLE demo_service LOGIN PASSWORD :'password';
\set ECHO queries
SELECT run_tracker.grant_client('demo_app');
SELECT run_tracker.grant_service('demo_service');
