/*-------------------------------------------------------------------------
 *
 * elements.h
 *		Elements of a conversation that was kept as a JSON array, as rows of messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RT_ELEMENTS_H
#define RT_ELEMENTS_H

#include "utils/jsonb.h"

/* key in messages.metadata: what an element of the array said that no column can */
#define RT_ELEMENT_KEY "run_tracker"

/* the columns of messages that an element gives values for */
typedef enum RtElementColumn
{
	RT_ELEMENT_TASK_ID,
	RT_ELEMENT_ROLE,
	RT_ELEMENT_NAME,
	RT_ELEMENT_CONTENT,
	RT_ELEMENT_PARTS,
	RT_ELEMENT_METADATA,
	RT_ELEMENT_CREATED_AT,
	RT_ELEMENT_NCOLUMNS
} RtElementColumn;

/* Rows, column by column. */
typedef struct RtElementRows
{
	int n;
	Datum *values[RT_ELEMENT_NCOLUMNS];
	bool *nulls[RT_ELEMENT_NCOLUMNS];
} RtElementRows;

extern void rt_elements_begin(RtElementRows *rows, int size);
extern void rt_elements_add(RtElementRows *rows, const JsonbValue *element, int index);
extern NullableDatum rt_elements_column(const RtElementRows *rows, RtElementColumn column);

#endif /* RT_ELEMENTS_H */
