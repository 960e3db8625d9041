<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use PMP\Analytics\Connect\Connection;
use PMP\Analytics\Connect\Finding;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP\Analytics\Rest\ArrivalsRoute;
use PMP\Analytics\Rest\CollectRoute;
use PMP_Config;

/**
 * The top of the settings: connects this site with a mesh by a one-time code, says what a check of the connection found, and shows
 * page views as they arrive.
 */
final class ConnectionBox implements Registerable
{
    private const ACTION = 'pmp_analytics_connect';

    private const FOUND = 'pmp_found_';

    private const SCRIPT = 'assets/settings.js';

    /** The script shows arrivals here. */
    private const ARRIVALS = 'pmp-arrivals';

    public function __construct(
        private readonly PMP_Config $config,
        private readonly Connection $connection,
        private readonly string $plugin_file,
    ) {
    }

    public function register(): void
    {
        Hook::action('admin_post_' . self::ACTION, [$this, 'act']);
        Hook::action('admin_enqueue_scripts', [$this, 'add_script']);
    }

    /**
     * @param string $screen Name of the page that is shown.
     */
    public function add_script(string $screen): void
    {
        if ($screen === 'settings_page_' . SettingsPage::SLUG && $this->config->is_complete()) {
            $version = get_file_data($this->plugin_file, ['version' => 'Version'])['version'];
            wp_enqueue_script('pmp-analytics-settings', plugins_url(self::SCRIPT, $this->plugin_file), [], $version, true);
        }
    }

    public function act(): void
    {
        if (! current_user_can(SettingsPage::CAPABILITY)) {
            wp_die(esc_html__('Sorry, you are not allowed to do this.', 'pmp-analytics'), '', ['response' => 403]);
        }
        check_admin_referer(self::ACTION);
        $code = trim(sanitize_textarea_field(wp_unslash($_POST['pmp_code'] ?? '')));
        $findings = isset($_POST['pmp_check']) ? $this->connection->check() : $this->connection->connect($code);
        $shown = array_map(static fn (Finding $each): array => [$each->kind, $each->text], $findings);
        set_transient(self::FOUND . get_current_user_id(), $shown, HOUR_IN_SECONDS);
        wp_safe_redirect(SettingsPage::address());
        exit;
    }

    public function show(): void
    {
        $this->show_findings();
        $is_connected = $this->config->is_complete();
        echo '<div class="card" style="max-width:none"><h2>';
        echo $is_connected ? esc_html__('Connected', 'pmp-analytics') : esc_html__('Connect this shop', 'pmp-analytics');
        echo '</h2>';
        if ($is_connected) {
            $this->show_arrivals();
            $this->begin_form();
            echo '<a class="button button-primary" href="' . esc_url(DashboardPage::address()) . '">';
            echo esc_html__('Open the dashboard', 'pmp-analytics') . '</a> ';
            submit_button(__('Check the connection', 'pmp-analytics'), 'secondary', 'pmp_check', false);
            echo '</form><br><details><summary>' . esc_html__('Connect with another code', 'pmp-analytics') . '</summary>';
        }
        $this->show_form();
        echo $is_connected ? '</details>' : '';
        echo '</div>';
    }

    private function show_findings(): void
    {
        $name = self::FOUND . get_current_user_id();
        foreach ((array) (get_transient($name) ?: []) as [$kind, $text]) {
            printf('<div class="notice notice-%s"><p>%s</p></div>', esc_attr($kind), esc_html($text));
        }
        delete_transient($name);
    }

    private function show_arrivals(): void
    {
        printf(
            '<p id="%s" role="status" data-route="%s" data-nonce="%s">%s</p>',
            esc_attr(self::ARRIVALS),
            // Its text is in the user's language, as the page is.
            esc_url(add_query_arg('_locale', 'user', rest_url(CollectRoute::SPACE . ArrivalsRoute::PATH))),
            esc_attr(wp_create_nonce('wp_rest')),
            esc_html__('Looking for page views …', 'pmp-analytics'),
        );
        echo '<p class="description">';
        esc_html_e('Open your shop in a private window to see your own page view here: staff are not recorded.', 'pmp-analytics');
        echo '</p>';
    }

    private function begin_form(): void
    {
        echo '<form action="' . esc_url(admin_url('admin-post.php')) . '" method="post">';
        wp_nonce_field(self::ACTION);
        echo '<input type="hidden" name="action" value="' . esc_attr(self::ACTION) . '">';
    }

    private function show_form(): void
    {
        $this->begin_form();
        $text = __('On the machine of the mesh, run this command. It prints a code that works once, within ten minutes:', 'pmp-analytics');
        echo '<p>' . esc_html($text) . ' <code>pmp connect wordpress</code></p>';
        echo '<p><label for="pmp-code">' . esc_html__('Code', 'pmp-analytics') . '</label><br>';
        echo '<textarea id="pmp-code" name="pmp_code" rows="4" class="large-text code" autocomplete="off" spellcheck="false">';
        echo '</textarea></p>';
        submit_button(__('Connect', 'pmp-analytics'), 'primary', 'submit', false);
        echo '</form>';
    }
}
