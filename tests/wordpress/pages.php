<?php

/**
 * Gives the site of the folder PMP_SITE the child theme, and pages that a visitor of a course shop finds.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = (string) parse_url((string) getenv('PMP_HOME'), PHP_URL_HOST);
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';

switch_theme('understrap-child');
update_option('blogname', 'PMP Course');
update_option('default_comment_status', 'closed');
$pages = [
    'home' => ['Pass the PMP exam', 'landing', '<p>The course that gets you there, and a free guide to begin with.</p>'],
    'free-guide' => ['The free guide', 'lead', '<p>What the exam asks, on twenty pages.</p>'],
    'pricing' => ['Pricing', 'pricing', ''],
    'checkout' => ['Checkout', '', '[woocommerce_checkout]'],
];
foreach ($pages as $name => [$title, $template, $content]) {
    $id = wp_insert_post([
        'post_type' => 'page',
        'post_status' => 'publish',
        'post_name' => $name,
        'post_title' => $title,
        'post_content' => $content,
        'comment_status' => 'closed',
        'page_template' => $template === '' ? 'default' : "page-templates/{$template}.php",
    ], true);
    if (is_wp_error($id)) {
        fwrite(STDERR, $id->get_error_message() . PHP_EOL);
        exit(1);
    }
    if ($name === 'home') {
        update_option('show_on_front', 'page');
        update_option('page_on_front', $id);
    }
}
