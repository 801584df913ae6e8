/*-------------------------------------------------------------------------
 *
 * views.h
 *		What PostgreSQL does for tables, for the views of applications.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_VIEWS_H
#define RT_VIEWS_H

#include "run_tracker.h"

#include "access/attnum.h"
#include "utils/rel.h"

#define RT_VIEW_MAX_KEYS 3

/* A view of an application: its table, and its columns that are the key. */
typedef struct RtView
{
	const char *table;
	int nkeys;
	AttrNumber keys[RT_VIEW_MAX_KEYS];
} RtView;

extern void rt_views_init(void);
extern bool rt_view_describe(RtView *view, Relation rel);

#endif /* RT_VIEWS_H */
