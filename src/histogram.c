/*-------------------------------------------------------------------------
 *
 * histogram.c
 *		Histograms of milliseconds that can be added up.
 *
 * Up to 100 ms each value has a bucket of its own.  Above, each decade has 90: 25 from 1
 * to 2, 40 from 2 to 5, 25 from 5 to 10.  So 1, 2 and 5 times a power of ten are
 * bounds, up to which values can be counted exactly; and the middle of a bucket is at most
 * 2 % away from any value in it.  A bucket contains its upper bound, not its lower one.
 *
 * In SQL a histogram is an array of bigint: bucket, count, bucket, count, …, with buckets
 * ascending.  Null is empty.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "utils/builtins.h"

#include "stats.h"

PG_FUNCTION_INFO_V1(run_tracker_histogram_bucket);
PG_FUNCTION_INFO_V1(run_tracker_histogram_bound);
PG_FUNCTION_INFO_V1(run_tracker_histogram_quantile);
PG_FUNCTION_INFO_V1(run_tracker_histogram_count);
PG_FUNCTION_INFO_V1(run_tracker_histogram_accumulate);
PG_FUNCTION_INFO_V1(run_tracker_histogram_result);

#define N_EXACT	   101 /* 0 to 100 */
#define PER_DECADE 90

/* The bucket that a duration falls into. */
int
rt_histogram_bucket(int64 ms)
{
	int64 rest;
	int64 base = 100;
	int decade = 0;
	int step;

	ms = Min(Max(ms, 0), RT_MAX_MS);
	if (ms < N_EXACT)
		return (int) ms;
	rest = ms - 1;
	while (rest >= base * 10)
	{
		base *= 10;
		decade++;
	}
	if (rest < 2 * base)
		step = (int) ((rest - base) * 25 / base);
	else if (rest < 5 * base)
		step = 25 + (int) ((rest - 2 * base) * 40 / (3 * base));
	else
		step = 65 + (int) ((rest - 5 * base) * 5 / base);
	return N_EXACT + PER_DECADE * decade + step;
}

/* The longest duration that falls into a bucket. */
static int64
upper_bound(int bucket)
{
	int64 base = 100;
	int step;

	if (bucket < N_EXACT)
		return bucket;
	for (int i = 0; i < (bucket - N_EXACT) / PER_DECADE; i++)
		base *= 10;
	step = (bucket - N_EXACT) % PER_DECADE + 1;
	/* rounded up, since the next bucket begins above that */
	if (step <= 25)
		return base + (base * step + 24) / 25;
	if (step <= 65)
		return 2 * base + (3 * base * (step - 25) + 39) / 40;
	return 5 * base + base * (step - 65) / 5;
}

/* What stands for the durations in a bucket: the middle. */
static int64
middle(int bucket)
{
	if (bucket < N_EXACT)
		return bucket;
	return (upper_bound(bucket - 1) + 1 + upper_bound(bucket)) / 2;
}

/* Add up, and stay in range: a sum that no true value reaches must not stop what reads it. */
static int64
add(int64 a, int64 b)
{
	int64 sum;

	if (pg_add_s64_overflow(a, b, &sum))
		return b > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return sum;
}

/* Count into a bucket; its memory is the current context's. */
void
rt_histogram_add(RtHistogram *histogram, int bucket, int64 count)
{
	int low = 0;
	int high = histogram->n;

	/* they mostly come in order */
	if (high > 0 && histogram->buckets[high - 1].bucket < bucket)
		low = high;
	while (low < high)
	{
		int mid = (low + high) / 2;

		if (histogram->buckets[mid].bucket < bucket)
			low = mid + 1;
		else
			high = mid;
	}
	if (low < histogram->n && histogram->buckets[low].bucket == bucket)
	{
		histogram->buckets[low].count = add(histogram->buckets[low].count, count);
		return;
	}
	if (histogram->n == histogram->size)
	{
		int size = Max(histogram->size * 2, 2);

		histogram->buckets = histogram->buckets ?
								 repalloc(histogram->buckets, sizeof(RtBucket) * size) :
								 palloc(sizeof(RtBucket) * size);
		histogram->size = size;
	}
	memmove(&histogram->buckets[low + 1], &histogram->buckets[low],
			sizeof(RtBucket) * (histogram->n - low));
	histogram->buckets[low].bucket = bucket;
	histogram->buckets[low].count = count;
	histogram->n++;
}

/* The pairs of an array; 22023 if it is no histogram. */
static Size
read_pairs(Datum value, const int64 **pairs)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	int n = ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0];
	const int64 *data = (const int64 *) ARR_DATA_PTR(array);
	bool good =
		ARR_NDIM(array) <= 1 && ARR_ELEMTYPE(array) == INT8OID && !ARR_HASNULL(array) && n % 2 == 0;

	for (int i = 0; good && i < n; i += 2)
		good = data[i] >= 0 && data[i] < RT_NBUCKETS && (i == 0 || data[i] > data[i - 2]);
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("this is no histogram"),
						errdetail("A histogram is an array of bucket, count, bucket, count, …, "
								  "with buckets ascending from 0 to %d.",
								  RT_NBUCKETS - 1)));
	*pairs = data;
	return (Size) n / 2;
}

/* Add an array. */
void
rt_histogram_merge(RtHistogram *histogram, Datum array)
{
	const int64 *pairs;
	Size n = read_pairs(array, &pairs);

	for (Size i = 0; i < n; i++)
		rt_histogram_add(histogram, (int) pairs[2 * i], pairs[2 * i + 1]);
}

/* The histogram as an array; 0 if it is empty. */
Datum
rt_histogram_datum(const RtHistogram *histogram)
{
	Datum *elements = palloc(sizeof(Datum) * 2 * Max(histogram->n, 1));
	int n = 0;

	for (int i = 0; i < histogram->n; i++)
	{
		if (histogram->buckets[i].count == 0)
			continue;
		elements[n++] = Int64GetDatum(histogram->buckets[i].bucket);
		elements[n++] = Int64GetDatum(histogram->buckets[i].count);
	}
	if (n == 0)
		return (Datum) 0;
	return PointerGetDatum(
		construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* histogram_bucket(ms) → bucket */
Datum
run_tracker_histogram_bucket(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(rt_histogram_bucket(PG_GETARG_INT64(0)));
}

/* histogram_bound(bucket) → longest duration in it */
Datum
run_tracker_histogram_bound(PG_FUNCTION_ARGS)
{
	int32 bucket = PG_GETARG_INT32(0);

	if (bucket < 0 || bucket >= RT_NBUCKETS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there is no bucket %d", bucket),
				 errhint("Buckets are numbered from 0 to %d.", RT_NBUCKETS - 1)));
	PG_RETURN_INT64(upper_bound(bucket));
}

/* histogram_quantile(histogram, fraction) → milliseconds, or null if it is empty */
Datum
run_tracker_histogram_quantile(PG_FUNCTION_ARGS)
{
	const int64 *pairs;
	Size n = read_pairs(PG_GETARG_DATUM(0), &pairs);
	float8 fraction = PG_GETARG_FLOAT8(1);
	int64 total = 0;
	int64 rank;
	int64 seen = 0;
	int last = -1;

	/* NaN, too */
	if (!(fraction >= 0 && fraction <= 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"fraction\" must be a number from 0 to 1")));
	for (Size i = 0; i < n; i++)
		total = add(total, Max(pairs[2 * i + 1], 0));
	if (total == 0)
		PG_RETURN_NULL();
	/* the nearest rank: the smallest value that this part of all values does not exceed */
	rank = total;
	if (ceil(fraction * (float8) total) < (float8) total)
		rank = Max((int64) ceil(fraction * (float8) total), 1);
	for (Size i = 0; i < n; i++)
	{
		if (pairs[2 * i + 1] <= 0)
			continue;
		last = (int) pairs[2 * i];
		seen = add(seen, pairs[2 * i + 1]);
		if (seen >= rank)
			break;
	}
	PG_RETURN_INT64(middle(last));
}

/* histogram_count(histogram, up_to_ms) → number of values that are not longer */
Datum
run_tracker_histogram_count(PG_FUNCTION_ARGS)
{
	const int64 *pairs;
	int64 count = 0;
	Size n;

	if (PG_ARGISNULL(0))
		PG_RETURN_INT64(0);
	n = read_pairs(PG_GETARG_DATUM(0), &pairs);
	for (Size i = 0; i < n; i++)
		if (PG_ARGISNULL(1) || upper_bound((int) pairs[2 * i]) <= PG_GETARG_INT64(1))
			count = add(count, pairs[2 * i + 1]);
	PG_RETURN_INT64(count);
}

/* State transition of merge_histograms(): add up in the memory of the aggregate. */
Datum
run_tracker_histogram_accumulate(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	MemoryContext old;
	RtHistogram *sum;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "histogram_accumulate called in a context that is no aggregate");
	sum = PG_ARGISNULL(0) ? MemoryContextAllocZero(context, sizeof(RtHistogram)) :
							(RtHistogram *) PG_GETARG_POINTER(0);
	if (!PG_ARGISNULL(1))
	{
		const int64 *pairs;
		Size n = read_pairs(PG_GETARG_DATUM(1), &pairs);

		old = MemoryContextSwitchTo(context);
		for (const int64 *pair = pairs; pair < pairs + 2 * n; pair += 2)
			rt_histogram_add(sum, (int) pair[0], pair[1]);
		MemoryContextSwitchTo(old);
	}
	PG_RETURN_POINTER(sum);
}

/* Final function of merge_histograms(). */
Datum
run_tracker_histogram_result(PG_FUNCTION_ARGS)
{
	Datum result;

	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "histogram_result called in a context that is no aggregate");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	result = rt_histogram_datum((RtHistogram *) PG_GETARG_POINTER(0));
	if (result == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
