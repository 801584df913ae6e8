/*-------------------------------------------------------------------------
 *
 * uuid.c
 *		UUIDs of version 7 (RFC 9562): 48 bits of Unix milliseconds, then a
 *		counter that keeps one backend's ids ascending, then randomness.
 *
 * Ids that ascend with time keep B-trees dense and say when a run was made.
 * The counter is the 12 bits of "rand_a"; when it overflows within one
 * millisecond, the clock is advanced instead, as RFC 9562 §6.2 allows.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "port/pg_bswap.h"

PG_FUNCTION_INFO_V1(run_tracker_uuidv7);

#define UNIX_EPOCH_OFFSET_US                                                                       \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * USECS_PER_SEC)

/* Make a new id. */
void
rt_uuid_generate(pg_uuid_t *uuid)
{
	static int64 last_ms = 0;
	static uint16 counter = 0;
	int64 ms = (GetCurrentTimestamp() + UNIX_EPOCH_OFFSET_US) / 1000;
	uint64 high;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));

	if (ms > last_ms)
	{
		last_ms = ms;
		/* start low, and leave room to count */
		counter = (uint16) (((uuid->data[6] << 8) | uuid->data[7]) & 0x07FF);
	}
	else if (++counter > 0x0FFF)
	{
		last_ms++;
		counter = 0;
	}

	high = pg_hton64(((uint64) last_ms << 16) | 0x7000 | counter);
	memcpy(uuid->data, &high, sizeof(high));
	uuid->data[8] = (uuid->data[8] & 0x3F) | 0x80;
}

/* uuidv7() → a new id; the default of run and task ids. */
Datum
run_tracker_uuidv7(PG_FUNCTION_ARGS)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));

	rt_uuid_generate(uuid);
	PG_RETURN_UUID_P(uuid);
}
