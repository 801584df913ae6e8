/*-------------------------------------------------------------------------
 *
 * notes.h
 *		What a transaction notes for the worker and for those who listen.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_NOTES_H
#define RT_NOTES_H

#include "run_tracker.h"

extern void rt_notes_init(void);
extern void rt_note_deadline(TimestampTz deadline);
extern void rt_note_run(const pg_uuid_t *run_id);
extern void rt_note_check(void);
extern void rt_note_statistics(RtFoldWhen when);

/* notify.c */
extern int rt_notify_runs(const pg_uuid_t *runs, int n);
extern void rt_notify_resync(void);

#endif /* RT_NOTES_H */
