<?php

/**
 * The lead form, and its message after submission.
 *
 * @var array{name: string, email_field: string, name_field: string, trap_field: string, is_sent: bool, is_invalid: bool} $args
 */

declare(strict_types=1);

defined('ABSPATH') || exit;
?>
<?php if ($args['is_sent']) : ?>
  <p class="alert alert-success" id="lead-thanks" role="status">
    <?php esc_html_e('Thank you! The guide is on its way to you.', 'understrap-child'); ?>
  </p>
<?php else : ?>
    <?php if ($args['is_invalid']) : ?>
    <p class="alert alert-danger" role="alert"><?php esc_html_e('Please enter an e-mail address.', 'understrap-child'); ?></p>
    <?php endif; ?>
  <form method="post" action="<?php echo esc_url((string) get_permalink()); ?>" class="form-inline"
    data-pmp-form="<?php echo esc_attr($args['name']); ?>" data-pmp-ignore>
    <label class="sr-only" for="lead-email"><?php esc_html_e('E-mail address', 'understrap-child'); ?></label>
    <input type="email" class="form-control mr-2" id="lead-email" autocomplete="email" required maxlength="254"
      name="<?php echo esc_attr($args['email_field']); ?>" placeholder="<?php esc_attr_e('you@example.org', 'understrap-child'); ?>">
    <input type="hidden" name="<?php echo esc_attr($args['name_field']); ?>" value="<?php echo esc_attr($args['name']); ?>">
    <input type="text" class="d-none" name="<?php echo esc_attr($args['trap_field']); ?>"
      tabindex="-1" autocomplete="off" aria-hidden="true">
    <button type="submit" class="btn btn-success" id="download-btn"><?php esc_html_e('Get the free guide', 'understrap-child'); ?></button>
  </form>
<?php endif; ?>
