<?php

/**
 * Groups of LearnDash: who is in them, and which courses they open.
 */

declare(strict_types=1);

final class LearnDashGroups
{
    /** @var array<int, list<int>> Courses by group. */
    public static array $courses = [];

    /** @var array<int, list<int>> Users by group. */
    public static array $users = [];
}

/**
 * @return list<int>
 */
function learndash_group_enrolled_courses(int $group_id): array
{
    return LearnDashGroups::$courses[$group_id] ?? [];
}

/**
 * @return list<int>
 */
function learndash_get_groups_user_ids(int $group_id): array
{
    return LearnDashGroups::$users[$group_id] ?? [];
}

function sfwd_lms_has_access(int $course_id, int $user_id): bool
{
    foreach (LearnDashGroups::$users as $group_id => $users) {
        if (in_array($user_id, $users, true) && in_array($course_id, LearnDashGroups::$courses[$group_id] ?? [], true)) {
            return true;
        }
    }
    return false;
}
