<?php

/**
 * Removes what the plugin keeps, in every site of a network. Deactivating removes nothing.
 */

declare(strict_types=1);

defined('WP_UNINSTALL_PLUGIN') || exit;

require_once __DIR__ . '/src/Autoloader.php';
(new PMP\Analytics\Autoloader(__DIR__ . '/src'))->register();

$pmp_sites = is_multisite() ? get_sites(['fields' => 'ids', 'number' => 0]) : [get_current_blog_id()];
foreach ($pmp_sites as $pmp_site) {
    if (is_multisite()) {
        switch_to_blog($pmp_site);
    }
    PMP\Analytics\Installer::remove();
    if (is_multisite()) {
        restore_current_blog();
    }
}
