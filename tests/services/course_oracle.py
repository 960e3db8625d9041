"""Courses, what leads to them, and the funnel: computed by DuckDB from the tables of `shop_oracle`."""

from __future__ import annotations

TREND = ("visitors", "page_views", "enrolments", "completions", "orders", "net_revenue")
TABLES = """
CREATE TABLE sold_courses AS
SELECT id, course, SUM(CAST(amount AS DOUBLE) / count) AS amount FROM line_courses JOIN lines USING (id, number) GROUP BY id, course;

CREATE TABLE course_entries AS
SELECT id, course, kind, ts, CAST(base AS DOUBLE) * sold_courses.amount / paid AS base
FROM entries JOIN sold_courses USING (id)
JOIN (SELECT id, SUM(CAST(amount AS DOUBLE)) AS paid FROM entries WHERE kind = 'SALE' GROUP BY id) USING (id)
WHERE paid > 0;

CREATE TABLE bought AS
WITH of_orders AS (SELECT reported.id, reported.ts AS sold, sessions.* FROM reported JOIN sessions USING (carrier)),
chosen AS (
    SELECT id, sold, COALESCE(arg_max(visit, began) FILTER (began <= sold), arg_min(visit, began)) AS visit FROM of_orders GROUP BY id, sold
)
SELECT id, sold, visit, landing_page, video, visitor,
    (SELECT COALESCE(MAX(ts) FILTER (ts <= sold), MIN(ts)) FROM visits WHERE visits.visit = chosen.visit) AS visited
FROM chosen JOIN sessions USING (visit);
"""
_COURSES = """
WITH e AS (
    SELECT events.course, COUNT(*) FILTER (events.type = 'page_view') AS page_views, COUNT(DISTINCT visitor) AS visitors,
        COUNT(*) FILTER (events.type = 'course_enrolled') AS enrolments, COUNT(*) FILTER (events.type = 'course_completed') AS completions
    FROM events LEFT JOIN visited USING (key)
    WHERE events.course <> '' AND events.type <> 'scroll' AND day(events.ts) BETWEEN $since AND $until GROUP BY 1
), o AS (
    SELECT course, COUNT(*) AS orders FROM sold_courses JOIN orders USING (id) WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
), m AS (
    SELECT course, SUM(base) FILTER (kind = 'SALE') AS gross, -SUM(base) FILTER (kind = 'PARTIAL_REFUND') AS refunds, SUM(base) AS net
    FROM course_entries WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
)
SELECT course, CASE WHEN course IN ('scrum', '(other)') THEN '' ELSE upper(course) END AS title, COALESCE(page_views, 0) AS page_views,
    COALESCE(visitors, 0) AS visitors, COALESCE(enrolments, 0) AS enrolments, COALESCE(completions, 0) AS completions,
    COALESCE(orders, 0) AS orders, COALESCE(gross, 0) AS gross_revenue, COALESCE(refunds, 0) AS refunds, COALESCE(net, 0) AS net_revenue,
    CAST(COALESCE(orders, 0) AS DOUBLE) / NULLIF(visitors, 0) AS conversion
FROM e FULL JOIN o USING (course) FULL JOIN m USING (course)
"""
_FUNNEL = """
WITH marks AS (
    SELECT visitor, ts, CASE
        WHEN type = 'add_to_cart' THEN 3
        WHEN type = 'view_item' OR type = 'page_view' AND (course <> '' OR page LIKE '/product/%') THEN 2
        ELSE 1 END AS number
    FROM visited
    UNION ALL SELECT visitor, visited, 4 FROM bought
), reached AS (
    SELECT place AS number,
        (SELECT COUNT(DISTINCT visitor) FROM marks WHERE number >= place AND day(ts) BETWEEN $since AND $until) AS people
    FROM range(1, 5) AS places(place)
)
SELECT ['visitors', 'viewed', 'checkout', 'purchased'][number] AS step, number, people,
    COALESCE(LAG(people) OVER (ORDER BY number), people) - people AS drop_off,
    people / NULLIF(COALESCE(LAG(people) OVER (ORDER BY number), people), 0) AS share,
    people / NULLIF(FIRST(people) OVER (ORDER BY number), 0) AS share_of_visitors
FROM reached
"""
REPORTS = {("courses", "course"): _COURSES, ("funnel", "step"): _FUNNEL}
"""The rows of reports, by report and group."""
CONTENT = """
WITH kinds AS (SELECT UNNEST(['landing_page', 'video', 'campaign', 'source']) AS kind),
seen AS (SELECT DISTINCT visit, course FROM visited WHERE course <> '' AND type <> 'scroll'),
s AS (
    SELECT kind, course,
        CASE kind WHEN 'landing_page' THEN landing_page WHEN 'video' THEN video WHEN 'campaign' THEN campaign ELSE source END AS content,
        COUNT(*) AS sessions
    FROM seen JOIN sessions USING (visit), kinds WHERE day(began) BETWEEN $since AND $until GROUP BY ALL
), led AS (
    SELECT orders.id, orders.ts, kind,
        CASE kind WHEN 'landing_page' THEN landing_page WHEN 'video' THEN video WHEN 'campaign' THEN campaign ELSE source END AS content
    FROM orders LEFT JOIN bought USING (id), kinds
), o AS (
    SELECT kind, content, course, COUNT(*) AS orders FROM led JOIN sold_courses USING (id)
    WHERE day(ts) BETWEEN $since AND $until GROUP BY ALL
), m AS (
    SELECT kind, content, course, SUM(base) FILTER (course_entries.kind_ = 'SALE') AS gross,
        -SUM(base) FILTER (course_entries.kind_ = 'PARTIAL_REFUND') AS refunds, SUM(base) AS net
    FROM led JOIN (SELECT id, course, kind AS kind_, ts AS booked, base FROM course_entries) AS course_entries USING (id)
    WHERE day(booked) BETWEEN $since AND $until GROUP BY kind, content, course
)
SELECT kind, content, course, CASE WHEN course IN ('scrum', '(other)') THEN '' ELSE upper(course) END AS title,
    COALESCE(sessions, 0) AS sessions,
    COALESCE(orders, 0) AS orders, COALESCE(gross, 0) AS gross_revenue, COALESCE(refunds, 0) AS refunds, COALESCE(net, 0) AS net_revenue
FROM s FULL JOIN o USING (kind, content, course) FULL JOIN m USING (kind, content, course)
WHERE content <> '' AND (sessions > 0 OR orders > 0 OR net IS NOT NULL)
"""
HOUR = """
SELECT (SELECT COUNT(*) FROM sessions WHERE began >= $begin AND began < $end) AS sessions,
    (SELECT COUNT(*) FROM events WHERE type = 'page_view' AND ts >= $begin AND ts < $end) AS page_views,
    (SELECT COUNT(*) FROM orders WHERE ts >= $begin AND ts < $end) AS orders,
    (SELECT COALESCE(SUM(base), 0) FROM entries WHERE ts >= $begin AND ts < $end) AS net_revenue
"""
BY_MONTH = """
WITH days AS (SELECT CAST(UNNEST(generate_series(CAST($since AS DATE), CAST($until AS DATE), INTERVAL 1 DAY)) AS DATE) AS day),
months AS (SELECT MIN(day) AS first, MAX(day) AS last FROM days GROUP BY date_trunc('month', day))
SELECT first AS day,
    (SELECT COUNT(DISTINCT visitor) FROM visited WHERE day(ts) BETWEEN first AND last) AS visitors,
    (SELECT COUNT(*) FROM sessions WHERE day(began) BETWEEN first AND last) AS sessions,
    (SELECT COUNT(*) FROM events WHERE type = 'page_view' AND day(ts) BETWEEN first AND last) AS page_views,
    (SELECT COUNT(*) FROM orders WHERE day(ts) BETWEEN first AND last) AS orders,
    (SELECT COALESCE(SUM(base), 0) FROM entries WHERE day(ts) BETWEEN first AND last) AS net_revenue
FROM months ORDER BY first
"""
