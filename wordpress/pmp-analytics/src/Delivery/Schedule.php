<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;

/**
 * Delivers every minute, by WP-Cron and, with WooCommerce, by Action Scheduler too: each of them stops silently on some sites,
 * and thanks to the lease the second one costs nothing.
 */
final class Schedule implements Registerable
{
    public const HOOK = 'pmp_analytics_drain';

    private const INTERVAL = 'pmp_analytics_minute';

    private const GROUP = 'pmp-analytics';

    private const SECONDS = 20.0;

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly Drainer $drainer)
    {
    }

    public function register(): void
    {
        Hook::filter('cron_schedules', [self::class, 'add_interval']);
        Hook::action('init', [$this, 'keep_running']);
        Hook::action(self::HOOK, [$this, 'run']);
    }

    /**
     * @param array<string, array{interval: int, display: string}> $schedules
     * @return array<string, array{interval: int, display: string}>
     */
    public static function add_interval(array $schedules): array
    {
        $schedules[self::INTERVAL] = ['interval' => MINUTE_IN_SECONDS, 'display' => 'PMP Analytics'];
        return $schedules;
    }

    /**
     * Restores the cron event if a cleanup plugin removed it. Reads an autoloaded option only.
     */
    public function keep_running(): void
    {
        if (! wp_next_scheduled(self::HOOK)) {
            self::start();
        }
    }

    public function run(): void
    {
        $this->schedule_action();
        $this->drainer->drain(self::SECONDS);
        $this->queue->tidy();
    }

    public static function start(): void
    {
        Hook::filter('cron_schedules', [self::class, 'add_interval']);
        wp_schedule_event(time(), self::INTERVAL, self::HOOK);
    }

    public static function stop(): void
    {
        wp_clear_scheduled_hook(self::HOOK);
        if (function_exists('as_unschedule_all_actions')) {
            as_unschedule_all_actions(self::HOOK, [], self::GROUP);
        }
    }

    private function schedule_action(): void
    {
        if (function_exists('as_has_scheduled_action') && ! as_has_scheduled_action(self::HOOK, [], self::GROUP)) {
            as_schedule_recurring_action(time(), MINUTE_IN_SECONDS, self::HOOK, [], self::GROUP);
        }
    }
}
