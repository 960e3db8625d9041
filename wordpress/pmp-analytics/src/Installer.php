<?php

declare(strict_types=1);

namespace PMP\Analytics;

use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Delivery\Lease;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Delivery\Schedule;
use PMP\Analytics\Queue\Cipher;
use PMP\Analytics\Queue\Table;
use PMP\Analytics\Rest\RateLimit;
use PMP_Config;

/**
 * Creates the plugin's tables, and removes them when the plugin is deleted.
 */
final class Installer implements Registerable
{
    private const SCHEMA = 2;

    private const SCHEMA_OPTION = 'pmp_analytics_schema';

    /**
     * Neither the sites of a network nor updates trigger the activation hook, so every request checks the version of the
     * tables. The option is autoloaded, so the check costs nothing.
     */
    public function register(): void
    {
        if ((int) get_option(self::SCHEMA_OPTION) !== self::SCHEMA) {
            self::install();
        }
    }

    public static function activate(): void
    {
        self::install();
        Schedule::start();
    }

    /**
     * Rows stay: they are delivered once the plugin is active again.
     */
    public static function deactivate(): void
    {
        Schedule::stop();
    }

    public static function remove(): void
    {
        global $wpdb;
        Schedule::stop();
        Table::of_this_site()->drop();
        RateLimit::of_this_site()->drop();
        $options = [self::SCHEMA_OPTION, PMP_Config::OPTION, Cipher::KEY_OPTION, Pause::OPTION, Lease::OPTION, Backfill::OPTION];
        array_map(delete_option(...), $options);
        $wpdb->query("DELETE FROM {$wpdb->usermeta} WHERE meta_key LIKE 'pmp\\_%'");
        $transients = '^_transient_(timeout_)?pmp_(asked|check|erasure|found|report)_';
        $wpdb->query("DELETE FROM {$wpdb->options} WHERE option_name REGEXP '{$transients}'");
    }

    private static function install(): void
    {
        require_once ABSPATH . 'wp-admin/includes/upgrade.php';
        Table::of_this_site()->create();
        RateLimit::of_this_site()->create();
        Cipher::make_key();
        update_option(self::SCHEMA_OPTION, self::SCHEMA);
    }
}
