/*-------------------------------------------------------------------------
 *
 * attempt.c
 *		A step that may fail without taking the transaction with it, as a block with
 *		EXCEPTION in PL/pgSQL does it.
 *
 * Memory: the step runs in the caller's context; a step that failed may have left something
 * there.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "attempt.h"

/* The time limit may strike at the last moment, and must not hit what comes next. */
static void
end_limit(int limit_ms)
{
	if (limit_ms > 0)
	{
		disable_timeout(STATEMENT_TIMEOUT, false);
		QueryCancelPending = false;
	}
}

/*
 * Do a step in a subtransaction: NULL if it succeeded, else the error, and what it did is
 * rolled back.  A limit, in milliseconds, is for background processes only, which have no
 * statement_timeout; 0 is none.
 */
ErrorData *
rt_attempt(RtStep step, void *arg1, void *arg2, int limit_ms)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (limit_ms > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, limit_ms);
		step(arg1, arg2);
		end_limit(limit_ms);
		MemoryContextSwitchTo(context);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		end_limit(limit_ms);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
