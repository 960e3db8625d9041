<?php

/**
 * Action Scheduler, as much of it as keeps a recurring action.
 */

declare(strict_types=1);

class ActionScheduler_Double
{
    /** @var array<string, int> Interval in seconds by hook and group. */
    public static array $actions = [];
}

/**
 * @param array<mixed> $arguments
 */
function as_has_scheduled_action(string $hook, array $arguments, string $group): bool
{
    return $arguments === [] && isset(ActionScheduler_Double::$actions["{$group} {$hook}"]);
}

/**
 * @param array<mixed> $arguments
 */
function as_schedule_recurring_action(int $start, int $interval, string $hook, array $arguments, string $group): void
{
    if ($start <= time() && $arguments === []) {
        ActionScheduler_Double::$actions["{$group} {$hook}"] = $interval;
    }
}

/**
 * @param array<mixed> $arguments
 */
function as_unschedule_all_actions(string $hook, array $arguments, string $group): void
{
    if ($arguments === []) {
        unset(ActionScheduler_Double::$actions["{$group} {$hook}"]);
    }
}
