<?php

declare(strict_types=1);

namespace PMP\Analytics;

use PMP\Analytics\Rest\ChoicesRoute;
use PMP\Analytics\Rest\CollectRoute;
use PMP_Config;

/**
 * Adds the tracker to the shop's pages: one module, deferred, with settings that are the same for every visitor, so that pages
 * can be cached.
 */
final class TrackerScript implements Registerable
{
    private const HANDLE = 'pmp-analytics';

    private const SCRIPT = 'assets/shop.js';

    private const ASKING_SCRIPT = 'assets/ask.js';

    public function __construct(private readonly string $plugin_file, private readonly PMP_Config $config)
    {
    }

    public function register(): void
    {
        Hook::action('wp_enqueue_scripts', [$this, 'enqueue']);
        Hook::filter('script_loader_tag', [$this, 'as_module'], 10, 2);
        add_shortcode('pmp_privacy_choices', [$this, 'choices_button']);
    }

    public function enqueue(): void
    {
        wp_enqueue_script(self::HANDLE, plugins_url(self::SCRIPT, $this->plugin_file), [], $this->version(), true);
    }

    /**
     * A button that asks visitors again, so that they can change their choice.
     */
    public function choices_button(): string
    {
        return '<button type="button" data-pmp-consent="ask">' . esc_html__('Privacy choices', 'pmp-analytics') . '</button>';
    }

    /**
     * WordPress supports modules only since version 6.5.
     */
    public function as_module(string $tag, string $handle): string
    {
        if ($handle !== self::HANDLE) {
            return $tag;
        }
        /**
         * Settings of the tracker, documented in assets/README.md. They must be the same for every visitor because of page caches.
         *
         * @param array<string, mixed> $settings
         */
        $settings = apply_filters('pmp_analytics_tracker_settings', [
            'route' => $this->address('/notes'),
            'drain' => $this->address('/drain'),
            'consent' => $this->config->requires_consent() ? 'required' : 'assumed',
            'ask' => $this->ask(),
        ]);
        // Escaped so that no setting can close the script element.
        $island = sprintf(
            '<script type="application/json" id="pmp-settings">%s</script>',
            wp_json_encode($settings, JSON_UNESCAPED_SLASHES | JSON_HEX_TAG | JSON_HEX_AMP),
        );
        $tag = (string) preg_replace('/\s(type|defer|async)=(["\']).*?\2/', '', $tag);
        return $island . "\n" . str_replace('<script ', '<script type="module" ', $tag);
    }

    /**
     * Settings of the consent banner, for sites without a consent tool.
     *
     * @return array<string, mixed>
     */
    private function ask(): array
    {
        $policy = get_privacy_policy_url();
        return [
            'script' => add_query_arg('ver', $this->version(), wp_make_link_relative(plugins_url(self::ASKING_SCRIPT, $this->plugin_file))),
            'route' => $this->address(ChoicesRoute::PATH),
            'title' => __('Your privacy choices', 'pmp-analytics'),
            'text' => __(
                'If you accept, we store an id in your browser to measure which pages and campaigns work. You can change this at any time.',
                'pmp-analytics',
            ),
            'yes' => __('Accept', 'pmp-analytics'),
            'no' => __('Decline', 'pmp-analytics'),
        ] + ($policy === '' ? [] : ['policy' => ['url' => $policy, 'text' => __('Privacy policy', 'pmp-analytics')]]);
    }

    private function address(string $path): string
    {
        return wp_make_link_relative(rest_url(CollectRoute::SPACE . $path));
    }

    private function version(): string
    {
        return get_file_data($this->plugin_file, ['version' => 'Version'])['version'];
    }
}
