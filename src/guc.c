/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The settings of run_tracker.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include <limits.h>

#include "utils/guc.h"

int rt_identity_mode = RT_IDENTITY_JWT;
int rt_max_payload_kb = 16 * 1024;
bool rt_task_transitions = false;

static const struct config_enum_entry identity_options[] = {
	{"jwt", RT_IDENTITY_JWT, false},
	{"role", RT_IDENTITY_ROLE, false},
	{NULL, 0, false},
};

/*
 * Define all settings.  The prefix is reserved last, so that a misspelt
 * setting is refused from then on.
 */
void
rt_guc_init(void)
{
	DefineCustomEnumVariable("run_tracker.identity",
							 "Where run_tracker.current_user_id() finds the user.",
							 "\"jwt\" reads the claim \"sub\" that a gateway such as PostgREST sets for "
							 "each request; \"role\" takes the name of the current role.",
							 &rt_identity_mode, RT_IDENTITY_JWT, identity_options, PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("run_tracker.max_payload",
							"Largest text or json value that a tracked row may hold.",
							"A row with a larger value is refused before anything is written.",
							&rt_max_payload_kb, 16 * 1024, 1, 1024 * 1024, PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("run_tracker.task_transitions",
							 "Records the status changes of tasks in run_tracker.transitions, too.",
							 "Those of runs are always recorded.", &rt_task_transitions, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("run_tracker");
}
