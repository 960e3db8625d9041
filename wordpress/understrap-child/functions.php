<?php

/**
 * The theme's hooks. Tracking is configured by `data-pmp-*` attributes in the page templates.
 */

declare(strict_types=1);

defined('ABSPATH') || exit;

require __DIR__ . '/src/LeadForm.php';
require __DIR__ . '/src/Scripts.php';

add_action('after_setup_theme', static function (): void {
    load_child_theme_textdomain('understrap-child', get_stylesheet_directory() . '/languages');
});

(new PMP\Theme\LeadForm())->register();
(new PMP\Theme\Scripts())->register();
