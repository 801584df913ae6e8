/*-------------------------------------------------------------------------
 *
 * limit_state.c
 *		What all connections of the server share about rate limits and circuit breakers.
 *
 * It is not in tables, since it may neither wait for transactions nor be rolled back with
 * them: a caller that consumed and then aborts has called all the same, the next caller must
 * not wait for one that is slow, and that a call failed must be known although its
 * transaction aborts.  Nothing is written to disk or WAL.  So this works in read-only
 * transactions and on standbys, each server for itself; and a crash or restart of the server,
 * or failover to a standby, begins with empty counts and closed breakers.
 *
 * There is one hash table for all databases, in a dynamic shared memory area that the first
 * caller creates and each backend attaches to at its first use, whether the library is
 * preloaded or not.  A small struct in the main shared memory says where it is.  Entries are
 * compared by their full names; the hash has a secret seed, so nobody can choose names that
 * fall into one bucket.
 *
 * Locking protocol: the struct's lock protects creating and attaching.  The table has
 * partitions, each with a lock and with buckets of its own; all entries of an owner are in one
 * partition.  A partition's lock protects its entries, and is held for what a call has to
 * look at and to change, never while it waits for anything; nobody holds two of them.
 * Memory is allocated before the lock is taken, and an entry is complete before it is
 * linked: whatever fails (attaching to a segment may) leaves nothing half made.
 *
 * Memory: the area does not grow beyond run_tracker.limit_memory.  Who makes an entry first
 * removes those of the partition that say no more than no entry does; if there is no
 * memory left, those of all partitions.  A backend stays attached until it ends.
 *
 *-------------------------------------------------------------------------
 */
#include "run_tracker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "limit_state.h"

#define TRANCHE "run_tracker_limits"
/* backends may have loaded another version of the library: that has a state of its own */
#define SHMEM_NAME "run_tracker limits " RT_VERSION

#define N_PARTITIONS 256
#define N_BUCKETS	 64 /* of a partition */

/* all partitions are not swept more often, however many callers find no memory */
#define SWEEP_INTERVAL_US INT64CONST(100000)

/* In the main shared memory. */
typedef struct Shared
{
	LWLock lock;
	int tranche;
	bool created; /* area and table are there */
	dsa_handle area;
	dsa_pointer table;
	int memory_kb; /* limit of the area */
} Shared;

typedef struct Partition
{
	LWLockPadded lock;
	dsa_pointer buckets[N_BUCKETS];
} Partition;

typedef struct Table
{
	uint64 seed;
	pg_atomic_uint64 swept_at; /* all partitions */
	Partition partitions[N_PARTITIONS];
} Table;

static Shared *shared = NULL;
static dsa_area *area;
static Table *table = NULL;
static LWLock *held = NULL; /* lock of the partition that was entered */

static const Size body_size[RT_NLIMIT_KINDS] = {MAXALIGN(sizeof(RtRateUse)),
												MAXALIGN(sizeof(RtBreaker))};

/* ----------------------------------------------------------------
 * Attaching
 * ----------------------------------------------------------------
 */

/* Memory that is needed in the main shared memory; so little that it need not be asked for. */
Size
rt_limit_shmem_size(void)
{
	return MAXALIGN(sizeof(Shared));
}

static void
find_shared(void)
{
	Shared *found_shared;
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	found_shared = ShmemInitStruct(SHMEM_NAME, sizeof(Shared), &found);
	if (!found)
	{
		memset(found_shared, 0, sizeof(Shared));
		found_shared->tranche = LWLockNewTrancheId();
		LWLockInitialize(&found_shared->lock, found_shared->tranche);
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(found_shared->tranche, TRANCHE);
	shared = found_shared;
}

/* Create the area and the table.  An area that is not pinned at the end goes with the transaction.
 */
static void
create_table(void)
{
	dsa_area *new_area = dsa_create(shared->tranche);
	dsa_pointer pointer = dsa_allocate_extended(new_area, sizeof(Table), DSA_ALLOC_ZERO);
	Table *new_table = dsa_get_address(new_area, pointer);

	if (!pg_strong_random(&new_table->seed, sizeof(new_table->seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random number")));
	pg_atomic_init_u64(&new_table->swept_at, 0);
	for (int i = 0; i < N_PARTITIONS; i++)
		LWLockInitialize(&new_table->partitions[i].lock.lock, shared->tranche);

	dsa_pin(new_area);
	dsa_pin_mapping(new_area);
	shared->area = dsa_get_handle(new_area);
	shared->table = pointer;
	shared->created = true;
	area = new_area;
	table = new_table;
}

static void
attach_table(void)
{
	dsa_area *new_area = dsa_attach(shared->area);
	Table *new_table = dsa_get_address(new_area, shared->table);

	dsa_pin_mapping(new_area);
	area = new_area;
	table = new_table;
}

/* Attach to the table; false if there is none, and it is not to be created. */
static bool
attach(bool create)
{
	if (table == NULL || shared->memory_kb != rt_limit_memory_kb)
	{
		if (shared == NULL)
			find_shared();
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (table == NULL && (shared->created || create))
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			if (shared->created)
				attach_table();
			else
				create_table();
			MemoryContextSwitchTo(old);
		}
		if (table && shared->memory_kb != rt_limit_memory_kb)
		{
			dsa_set_size_limit(area, (Size) rt_limit_memory_kb * 1024);
			shared->memory_kb = rt_limit_memory_kb;
		}
		LWLockRelease(&shared->lock);
	}
	return table != NULL;
}

/* ----------------------------------------------------------------
 * Entries
 * ----------------------------------------------------------------
 */

/* The owner of an entry; its length is in the entry. */
const char *
rt_limit_owner(const RtLimitEntry *entry)
{
	return (const char *) &entry->body + body_size[entry->kind];
}

/* The name of an entry; its length is in the entry. */
const char *
rt_limit_name(const RtLimitEntry *entry)
{
	return rt_limit_owner(entry) + entry->owner_len;
}

static Size
entry_size(RtLimitKind kind, Size owner_len, Size name_len)
{
	return offsetof(RtLimitEntry, body) + body_size[kind] + owner_len + name_len;
}

static bool
is_owner(const RtLimitEntry *entry, const RtLimitKey *key)
{
	return entry->kind == key->kind && entry->dboid == MyDatabaseId &&
		   entry->owner_len == key->owner_len &&
		   memcmp(rt_limit_owner(entry), key->owner, key->owner_len) == 0;
}

static bool
is_entry(const RtLimitEntry *entry, const RtLimitKey *key)
{
	return entry->name_len == key->name_len && is_owner(entry, key) &&
		   memcmp(rt_limit_name(entry), key->name, key->name_len) == 0;
}

/* Does an entry say no more than no entry does? */
static bool
is_idle(const RtLimitEntry *entry, int64 now)
{
	if (entry->kind == RT_LIMIT_RATE)
		return rt_window_idle(&entry->body.rate.used, now);
	return entry->body.breaker.state == RT_BREAKER_CLOSED &&
		   rt_window_idle(&entry->body.breaker.calls, now);
}

/* The partition of a key, and its bucket there. */
static Partition *
find_partition(const RtLimitKey *key, int *bucket)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) key->owner, key->owner_len,
									  table->seed ^ ((uint64) MyDatabaseId << 1) ^ key->kind);

	if (bucket)
		*bucket =
			hash_bytes_extended((const unsigned char *) key->name, key->name_len, hash) % N_BUCKETS;
	return &table->partitions[hash % N_PARTITIONS];
}

static void
lock_partition(Partition *partition, LWLockMode mode)
{
	held = &partition->lock.lock;
	LWLockAcquire(held, mode);
}

static RtLimitEntry *
find_entry(const RtLimitKey *key, const Partition *partition, int bucket)
{
	for (dsa_pointer p = partition->buckets[bucket]; DsaPointerIsValid(p);)
	{
		RtLimitEntry *entry = dsa_get_address(area, p);

		if (is_entry(entry, key))
			return entry;
		p = entry->next;
	}
	return NULL;
}

/*
 * Remove entries of a partition: those of key's owner, only that of key if not all_names; or,
 * if key is NULL, those that are idle.  Returns how many; and how many entries of the owner
 * of counted are left, if asked.  The caller holds the partition's lock.
 */
static int64
remove_entries(Partition *partition, const RtLimitKey *key, bool all_names,
			   const RtLimitKey *counted, int64 *left)
{
	int64 now = rt_window_now();
	int64 removed = 0;

	for (int i = 0; i < N_BUCKETS; i++)
	{
		dsa_pointer *link = &partition->buckets[i];

		while (DsaPointerIsValid(*link))
		{
			dsa_pointer p = *link;
			RtLimitEntry *entry = dsa_get_address(area, p);

			if (key == NULL ? is_idle(entry, now) :
				all_names	? is_owner(entry, key) :
							  is_entry(entry, key))
			{
				*link = entry->next;
				dsa_free(area, p);
				removed++;
				continue;
			}
			if (counted && is_owner(entry, counted))
				(*left)++;
			link = &entry->next;
		}
	}
	return removed;
}

/* Remove what is idle everywhere; false if somebody has just done that. */
static bool
sweep(void)
{
	uint64 last = pg_atomic_read_u64(&table->swept_at);
	int64 now = rt_window_now();

	if (now - (int64) last < SWEEP_INTERVAL_US ||
		!pg_atomic_compare_exchange_u64(&table->swept_at, &last, (uint64) now))
		return false;
	for (int i = 0; i < N_PARTITIONS; i++)
	{
		lock_partition(&table->partitions[i], LW_EXCLUSIVE);
		(void) remove_entries(&table->partitions[i], NULL, false, NULL, NULL);
		rt_limit_leave();
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* A new entry, not linked yet; 53400 if there is no memory left. */
static dsa_pointer
allocate_entry(const RtLimitKey *key)
{
	Size size = entry_size(key->kind, key->owner_len, key->name_len);
	dsa_pointer p = dsa_allocate_extended(area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);
	RtLimitEntry *entry;

	if (!DsaPointerIsValid(p) && sweep())
		p = dsa_allocate_extended(area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);
	if (!DsaPointerIsValid(p))
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("no memory left for rate limits and circuit breakers"),
						errdetail("They may take %d kB.", rt_limit_memory_kb),
						errhint("Increase run_tracker.limit_memory, or make the windows of rate "
								"limits shorter.")));
	entry = dsa_get_address(area, p);
	entry->kind = key->kind;
	entry->dboid = MyDatabaseId;
	entry->owner_len = key->owner_len;
	entry->name_len = key->name_len;
	memcpy((char *) rt_limit_owner(entry), key->owner, key->owner_len);
	memcpy((char *) rt_limit_name(entry), key->name, key->name_len);
	return p;
}

/*
 * Find an entry of this database and lock it; NULL, and not locked, if there is none.
 * Until rt_limit_leave() the caller may do nothing that waits or allocates memory.
 */
RtLimitEntry *
rt_limit_enter(const RtLimitKey *key, LWLockMode mode)
{
	RtLimitEntry *entry;
	Partition *partition;
	int bucket;

	if (!attach(false))
		return NULL;
	partition = find_partition(key, &bucket);
	lock_partition(partition, mode);
	entry = find_entry(key, partition, bucket);
	if (entry == NULL)
		rt_limit_leave();
	return entry;
}

/*
 * Find an entry of this database, or make one, and lock it exclusively.  NULL, and not locked,
 * if there is none and the owner has max_names (0: no matter how many) others.
 */
RtLimitEntry *
rt_limit_create(const RtLimitKey *key, int max_names)
{
	RtLimitEntry *entry = rt_limit_enter(key, LW_EXCLUSIVE);
	Partition *partition;
	dsa_pointer spare;
	int bucket;

	if (entry)
		return entry;
	(void) attach(true);
	partition = find_partition(key, &bucket);
	spare = allocate_entry(key);
	lock_partition(partition, LW_EXCLUSIVE);
	entry = find_entry(key, partition, bucket); /* somebody else may have made it */
	if (entry == NULL)
	{
		int64 names = 0;

		(void) remove_entries(partition, NULL, false, key, &names);
		if (max_names == 0 || names < max_names)
		{
			entry = dsa_get_address(area, spare);
			entry->next = partition->buckets[bucket];
			partition->buckets[bucket] = spare;
			return entry;
		}
		rt_limit_leave();
	}
	dsa_free(area, spare);
	return entry;
}

/* Unlock what rt_limit_enter() or rt_limit_create() has locked. */
void
rt_limit_leave(void)
{
	LWLockRelease(held);
}

/* Remove an entry of this database, or all that its owner has; returns how many. */
int64
rt_limit_remove(const RtLimitKey *key, bool all_names)
{
	Partition *partition;
	int64 removed;

	if (!attach(false))
		return 0;
	partition = find_partition(key, NULL);
	lock_partition(partition, LW_EXCLUSIVE);
	removed = remove_entries(partition, key, all_names, NULL, NULL);
	rt_limit_leave();
	return removed;
}

/*
 * In which partitions the entries of an owner are, or, if key is NULL, all: the first, and
 * how many.
 */
int
rt_limit_partitions(const RtLimitKey *key, int *first)
{
	*first = 0;
	if (!attach(false))
		return 0;
	if (key == NULL)
		return N_PARTITIONS;
	*first = find_partition(key, NULL) - table->partitions;
	return 1;
}

/*
 * The entries of this database in a partition, of one kind, and of key's owner unless key is
 * NULL, as copies.
 */
List *
rt_limit_list(RtLimitKind kind, int n, const RtLimitKey *key)
{
	Partition *partition = &table->partitions[n];
	List *result = NIL;

	lock_partition(partition, LW_SHARED);
	for (int i = 0; i < N_BUCKETS; i++)
	{
		for (dsa_pointer p = partition->buckets[i]; DsaPointerIsValid(p);)
		{
			RtLimitEntry *entry = dsa_get_address(area, p);

			if (key ? is_owner(entry, key) : entry->kind == kind && entry->dboid == MyDatabaseId)
			{
				Size size = entry_size(kind, entry->owner_len, entry->name_len);
				RtLimitEntry *copy = palloc(size);

				memcpy(copy, entry, size);
				result = lappend(result, copy);
			}
			p = entry->next;
		}
	}
	rt_limit_leave();
	return result;
}
