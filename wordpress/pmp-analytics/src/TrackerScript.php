<?php

declare(strict_types=1);

namespace PMP\Analytics;

use PMP\Analytics\Rest\CollectRoute;

/**
 * Puts the tracker into the shop's pages: one module, deferred, with settings that are the same for every visitor, so that
 * a page cache may keep the page.
 */
final class TrackerScript implements Registerable
{
    private const HANDLE = 'pmp-analytics';

    private const SCRIPT = 'assets/shop.js';

    public function __construct(private readonly string $plugin_file)
    {
    }

    public function register(): void
    {
        add_action('wp_enqueue_scripts', [$this, 'enqueue']);
        add_filter('script_loader_tag', [$this, 'as_module'], 10, 2);
    }

    public function enqueue(): void
    {
        $version = get_file_data($this->plugin_file, ['version' => 'Version'])['version'];
        wp_enqueue_script(self::HANDLE, plugins_url(self::SCRIPT, $this->plugin_file), [], $version, true);
    }

    /**
     * WordPress knows modules since 6.5 only.
     */
    public function as_module(string $tag, string $handle): string
    {
        if ($handle !== self::HANDLE) {
            return $tag;
        }
        /**
         * Settings of the tracker, as assets/README.md names them. The same for every visitor, or page caches mix them up.
         *
         * @param array<string, mixed> $settings
         */
        $settings = apply_filters('pmp_analytics_tracker_settings', [
            'route' => wp_make_link_relative(rest_url(CollectRoute::SPACE . '/notes')),
            'drain' => wp_make_link_relative(rest_url(CollectRoute::SPACE . '/drain')),
            'consent' => 'required',
        ]);
        // No text of a setting can end the element it stands in.
        $island = sprintf(
            '<script type="application/json" id="pmp-settings">%s</script>',
            wp_json_encode($settings, JSON_UNESCAPED_SLASHES | JSON_HEX_TAG | JSON_HEX_AMP),
        );
        $tag = (string) preg_replace('/\s(type|defer|async)=(["\']).*?\2/', '', $tag);
        return $island . "\n" . str_replace('<script ', '<script type="module" ', $tag);
    }
}
